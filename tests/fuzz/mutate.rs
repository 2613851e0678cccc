//! Inputs made of others: for a run of seconds that needs no instrumented build.

use fastrand::Rng;

/// What is worth a try anywhere.
const TOKENS: [&[u8]; 24] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b"\x0b",
    b":",
    b",",
    b";",
    b"0",
    b"+",
    b"-1",
    b"0x",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 5\r\n",
    b"Connection: close\r\n",
    b"Host: b\r\n",
    b"0\r\n\r\n",
    b"99999999999999999999",
    b"{",
    b"[",
    b"\"",
    b"null",
];

/// Makes inputs, always the same ones.
pub(crate) struct Mutator<'c> {
    corpus: &'c [Vec<u8>],
    rng: Rng,
}

impl<'c> Mutator<'c> {
    pub(crate) fn new(corpus: &'c [Vec<u8>]) -> Self {
        Self { corpus, rng: Rng::with_seed(1) }
    }

    pub(crate) fn next(&mut self) -> Vec<u8> {
        let mut input = self.pick();
        for _ in 0..self.rng.usize(1..5) {
            self.mutate(&mut input);
        }
        input
    }

    fn pick(&mut self) -> Vec<u8> {
        self.rng.choice(self.corpus).cloned().unwrap_or_default()
    }

    fn mutate(&mut self, input: &mut Vec<u8>) {
        let rng = &mut self.rng;
        let at = rng.usize(..=input.len());
        let end = input.len().min(at + rng.usize(1..20));
        match rng.u8(..7) {
            0 if at < end => input[at] ^= 1 << rng.u8(..8),
            1 if at < end => input[at] = rng.u8(..),
            2 => drop(input.drain(at..end)),
            3 => {
                let part = input[at..end].to_vec();
                input.splice(at..at, part);
            }
            4 => input.truncate(at),
            5 => {
                let other = self.pick();
                let from = self.rng.usize(..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => {
                let token = TOKENS[rng.usize(..TOKENS.len())];
                input.splice(at..at, token.iter().copied());
            }
        }
    }
}
