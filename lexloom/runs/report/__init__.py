"""Report: what a run did, as one page and as text."""

from lexloom.runs.report.render import first_sentence, text_report, write_report

__all__ = ["first_sentence", "text_report", "write_report"]
