"""The documentation's own tools: the page of commands, and the sample report with the README's transcript."""
