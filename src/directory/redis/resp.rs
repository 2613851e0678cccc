//! The protocol of Redis (RESP2 and RESP3), with a limit for every reply.
//!
//! No memory is allocated because of an announced length: memory grows with the bytes that have arrived, and these are
//! counted. The `redis` crate's own parser has no limit, and reserves what a header announces.

use redis::{ErrorKind, PushKind, RedisError, RedisResult, Value, VerbatimFormat};
use std::io::{self, BufRead, Read};

/// The greatest nesting of replies. The replies used here have a nesting of 2.
const MAX_DEPTH: usize = 8;
/// The longest line: a simple string, an error, a number or a header.
const MAX_LINE: usize = 64 * 1024;
/// The cost of a value besides its bytes: many empty values take memory too.
const VALUE_COST: usize = size_of::<Value>();
/// Bytes reserved before any have arrived.
const MAX_RESERVED: usize = 64 * 1024;

/// Reads one reply. Its cost is subtracted from `budget`; a reply beyond it fails with [`too_long`].
pub(super) fn read(input: &mut impl BufRead, budget: &mut usize) -> RedisResult<Value> {
    RouteReader { input, budget }.value(0)
}

/// The error of a reply beyond the budget.
fn too_long() -> RedisError {
    (ErrorKind::Client, "the reply is too long").into()
}

/// Whether an error means a reply beyond the budget.
pub(super) fn is_too_long(error: &RedisError) -> bool {
    // No other error of this kind comes from reading.
    error.kind() == ErrorKind::Client
}

fn bad(what: &'static str) -> RedisError {
    (ErrorKind::Parse, what).into()
}

struct RouteReader<'r, I> {
    input: &'r mut I,
    budget: &'r mut usize,
}

impl<I: BufRead> RouteReader<'_, I> {
    fn value(&mut self, depth: usize) -> RedisResult<Value> {
        if depth > MAX_DEPTH {
            return Err(bad("a reply is nested too deep"));
        }
        self.spend(VALUE_COST)?;
        let line = self.line()?;
        let (&kind, rest) = line.split_first().ok_or_else(|| bad("a reply has an empty line"))?;
        Ok(match kind {
            b'+' if rest == b"OK" => Value::Okay,
            b'+' => Value::SimpleString(text(rest)?.to_owned()),
            b'-' => redis::parse_redis_value(&[&line, &b"\r\n"[..]].concat())?,
            b':' => Value::Int(number(rest)?),
            b'$' => self.bulk(rest)?.map_or(Value::Nil, Value::BulkString),
            b'=' => verbatim(&self.bulk(rest)?.unwrap_or_default())?,
            b'!' => {
                let message = self.bulk(rest)?.unwrap_or_default();
                redis::parse_redis_value(&[b"-", &*message, b"\r\n"].concat())?
            }
            b'*' if rest == b"-1" => Value::Nil,
            b'*' => Value::Array(self.values(count(rest)?, depth)?),
            b'~' => Value::Set(self.values(count(rest)?, depth)?),
            b'%' => Value::Map(self.pairs(count(rest)?, depth)?),
            b'>' => push(self.values(count(rest)?, depth)?)?,
            // Attributes are ignored.
            b'|' => {
                self.pairs(count(rest)?, depth)?;
                self.value(depth + 1)?
            }
            b'_' => Value::Nil,
            b',' => Value::Double(text(rest)?.parse().map_err(|_| bad("a reply has a bad number"))?),
            b'#' => Value::Boolean(rest == b"t"),
            b'(' => Value::BigNumber(rest.to_vec()),
            _ => return Err(bad("a reply begins with an unknown byte")),
        })
    }

    fn values(&mut self, count: usize, depth: usize) -> RedisResult<Vec<Value>> {
        // The least cost of this many values.
        if count > *self.budget / VALUE_COST {
            return Err(too_long());
        }
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(self.value(depth + 1)?);
        }
        Ok(values)
    }

    fn pairs(&mut self, count: usize, depth: usize) -> RedisResult<Vec<(Value, Value)>> {
        let mut values = self.values(count.checked_mul(2).ok_or_else(too_long)?, depth)?.into_iter();
        Ok(std::iter::from_fn(|| Some((values.next()?, values.next()?))).collect())
    }

    /// A string of the announced length; `None` for a null.
    fn bulk(&mut self, header: &[u8]) -> RedisResult<Option<Vec<u8>>> {
        if header == b"-1" {
            return Ok(None);
        }
        let length = count(header)?;
        self.spend(length)?;
        let mut bytes = Vec::with_capacity(length.min(MAX_RESERVED));
        let mut end = [0; 2];
        (&mut *self.input).take(length as u64).read_to_end(&mut bytes)?;
        self.input.read_exact(&mut end)?;
        if bytes.len() == length && end == *b"\r\n" { Ok(Some(bytes)) } else { Err(bad("a reply has a bad end")) }
    }

    /// The next line, without its end.
    fn line(&mut self) -> RedisResult<Vec<u8>> {
        let most = MAX_LINE.min(*self.budget);
        let mut line = Vec::new();
        (&mut *self.input).take(most as u64 + 2).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        match line.strip_suffix(b"\r\n").map(<[u8]>::len) {
            Some(length) => line.truncate(length),
            None if line.len() >= most => return Err(too_long()),
            None => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
        self.spend(line.len())?;
        Ok(line)
    }

    fn spend(&mut self, cost: usize) -> RedisResult<()> {
        *self.budget = self.budget.checked_sub(cost).ok_or_else(too_long)?;
        Ok(())
    }
}

fn text(bytes: &[u8]) -> RedisResult<&str> {
    std::str::from_utf8(bytes).map_err(|_| bad("a reply has a line that is no UTF-8"))
}

fn number(bytes: &[u8]) -> RedisResult<i64> {
    text(bytes)?.parse().map_err(|_| bad("a reply has a bad number"))
}

fn count(bytes: &[u8]) -> RedisResult<usize> {
    usize::try_from(number(bytes)?).map_err(|_| bad("a reply has a bad length"))
}

fn verbatim(bytes: &[u8]) -> RedisResult<Value> {
    let (format, text) = text(bytes)?.split_once(':').ok_or_else(|| bad("a verbatim string has no format"))?;
    Ok(Value::VerbatimString { format: VerbatimFormat::Unknown(format.to_owned()), text: text.to_owned() })
}

fn push(values: Vec<Value>) -> RedisResult<Value> {
    let mut values = values.into_iter();
    let kind = match values.next() {
        Some(Value::BulkString(kind)) => text(&kind)?.to_owned(),
        Some(Value::SimpleString(kind)) => kind,
        _ => return Err(bad("a push has no kind")),
    };
    let kind = match kind.as_str() {
        "invalidate" => PushKind::Invalidate,
        "pmessage" => PushKind::PMessage,
        "psubscribe" => PushKind::PSubscribe,
        _ => PushKind::Other(kind),
    };
    Ok(Value::Push { kind, data: values.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8], mut budget: usize) -> RedisResult<Value> {
        read(&mut &*bytes, &mut budget)
    }

    #[test]
    fn replies_are_what_the_redis_crate_understands_them_to_be() {
        for bytes in [
            &b"+OK\r\n"[..],
            b"+PONG\r\n",
            b"-ERR no\r\n",
            b"-NOPERM this user may not\r\n",
            b"-ODD code\r\n",
            b":-3\r\n",
            b"$-1\r\n",
            b"$0\r\n\r\n",
            b"$3\r\na\r\n\r\n",
            b"*-1\r\n",
            b"*0\r\n",
            b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
            b"~2\r\n+a\r\n_\r\n",
            b"%1\r\n$5\r\nproto\r\n:3\r\n",
            b"!5\r\nERR x\r\n",
            b",1.5\r\n",
            b"#t\r\n",
            b"#f\r\n",
            b"(123456789012345678901234567890\r\n",
            b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n",
            b">2\r\n$10\r\ninvalidate\r\n_\r\n",
            b">4\r\n$8\r\npmessage\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n",
        ] {
            let expected = redis::parse_redis_value(bytes).expect("a good reply");
            assert_eq!(parse(bytes, 10_000).expect("a good reply"), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_reply_beyond_its_limit_is_reported_and_uses_no_memory_beyond_it() {
        let long = [b"$1000\r\n", &[b'x'; 1000][..], b"\r\n"].concat();
        assert!(parse(&long, 1000 + 2 * VALUE_COST).is_ok());
        let table: [&[u8]; 7] = [
            &long,
            b"$9000000000000\r\nx",
            b"*9000000000000\r\n",
            b"%9000000000000000000\r\n",
            b"*2\r\n*2\r\n*2\r\n*2\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n",
            &[b"+", &[b'x'; 5000][..]].concat(),
            &[b"*100\r\n", &b":1\r\n".repeat(100)[..]].concat(),
        ];
        for bytes in table {
            let error = parse(bytes, 300).expect_err("too long");
            assert!(is_too_long(&error), "{}: {error}", bytes[..20.min(bytes.len())].escape_ascii());
        }
    }

    #[test]
    fn every_other_fault_is_an_error_and_no_panic() {
        for bytes in [
            &b""[..],
            b"+OK",
            b"\r\n",
            b"?\r\n",
            b":x\r\n",
            b"$x\r\n",
            b"$-2\r\n",
            b"$3\r\nab",
            b"$3\r\nabcde\r\n",
            b"*1\r\n",
            b"*-2\r\n",
            b">0\r\n",
            b"=3\r\nabc\r\n",
            b"+\xff\r\n",
        ] {
            let error = parse(bytes, 10_000).expect_err("no good");
            assert!(!is_too_long(&error), "{}: {error}", bytes.escape_ascii());
        }
        let deep = b"*1\r\n".repeat(100);
        assert!(!is_too_long(&parse(&deep, 1 << 20).expect_err("too deep")));
    }
}
