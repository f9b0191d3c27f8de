"""Counts the words of its standard input: `mayfly run examples/words.py < README.md`."""

import re
import sys
from collections import Counter

words = Counter(re.findall(r"[a-z]+", sys.stdin.read().lower()))
for word, count in words.most_common(5):
    print(f"{count:5}  {word}")
