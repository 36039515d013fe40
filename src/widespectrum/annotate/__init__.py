"""People judge: pages that ask raters which image of a pair fits its prompt better, and their answers as verdicts."""
