"""How sure a network is of the tokens of a text: one file for each role of head that can say."""
