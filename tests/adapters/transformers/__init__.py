"""Tests of the adapter to transformers, which compare the hand-over of tokens with the path through pixels."""
