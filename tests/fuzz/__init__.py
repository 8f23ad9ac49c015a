"""What is read from outside, given whatever comes: harnesses for a fuzzer that follows coverage.

A harness is a module with ``try_one``, which takes one input and fails with whatever a caller
must never meet, ``seeds``, from which the fuzzer makes its inputs, and ``WORDS``, which it puts
into them. None is collected by the tests; ``nox -s fuzz -- SECONDS`` runs each for so long, and
``tests/test_fuzz_findings.py`` holds that they take their own seeds, and what they have found.
"""
