//! Which member of a frontend gets a request. One policy a file.

mod random;

pub use random::pick;
