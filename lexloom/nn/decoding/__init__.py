"""Decoding on ids: what a decoder says after a prompt, chosen token by token or by beams."""

from lexloom.nn.decoding.generate import ROWS, generate, stream
from lexloom.nn.decoding.request import Decoder, Generated, InBursts, Request
from lexloom.nn.decoding.scheduler import Chosen, Scheduler
from lexloom.nn.decoding.settings import GenerationConfig
from lexloom.nn.decoding.trie import Trie

__all__ = ["ROWS", "Chosen", "Decoder", "Generated", "GenerationConfig", "InBursts", "Request", "Scheduler", "Trie", "generate", "stream"]
