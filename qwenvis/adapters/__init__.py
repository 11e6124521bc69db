"""Adapters: visual tokens handed to other engines, in the form that each of them takes."""
