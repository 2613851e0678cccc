//! Played by hand, and by the dice.
