"""What crosses between our programs: API frames and message content. One contract, no behaviour."""
