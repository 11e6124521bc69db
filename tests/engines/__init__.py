"""Tests of the adapters to engines: against recorded contracts, and with the engine where it is installed."""
