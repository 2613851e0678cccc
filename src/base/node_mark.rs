//! The mark of this node, which distinguishes it from other nodes with the same name.

use std::env;
use std::sync::OnceLock;

/// The environment variable in which a process passes its mark to its successor.
pub const VARIABLE: &str = "SLUICE_NODE_MARK";

/// Number of hexadecimal digits of a mark.
const DIGITS: usize = 12;

/// The mark: 12 random hexadecimal digits. It stays the same for the life of the process and of its successors at
/// upgrades.
pub fn node_mark() -> &'static str {
    static MARK: OnceLock<String> = OnceLock::new();
    MARK.get_or_init(|| env::var(VARIABLE).ok().filter(|mark| is_mark(mark)).unwrap_or_else(draw))
}

fn draw() -> String {
    let width = 4 * DIGITS;
    format!("{:0DIGITS$x}", fastrand::u64(..1 << width))
}

fn is_mark(text: &str) -> bool {
    text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_stays_and_no_two_that_are_drawn_are_the_same() {
        assert!(is_mark(node_mark()), "{}", node_mark());
        assert_eq!(node_mark(), node_mark());
        let (one, other) = (draw(), draw());
        assert!(is_mark(&one) && is_mark(&other) && one != other, "{one} and {other}");
        assert!(!is_mark("") && !is_mark("5f3a9c21b07g") && !is_mark("5f3a9c21b07d4"));
    }
}
