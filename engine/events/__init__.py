"""The contract's judge of an order event: amounts, instants, ids, JSON rows. Files and the live worker use it alike."""
