//! Splits one line of a configuration into words: quotes, escapes, variables, comments (configuration.txt sections 2.2,
//! 2.3).
//!
//! Outside of quotes `#` begins a comment at any position. A backslash escapes a space, itself, `#`, quotes, and in
//! double quotes `$`; `\n`, `\r`, `\t` and `\xNN` are characters; any other backslash stays, so regular expressions
//! need no second one. Within single quotes no character is special. Variables are replaced within double quotes only.

use super::environment::Environment;
use super::position::{Fault, Position};

/// The greatest number of words of a line, including expanded variables. HAProxy's own limit is 64.
const MAX_WORDS: usize = 4096;

/// The greatest length of a line after expansion, in bytes. HAProxy's own limit is 2048.
const MAX_LINE: usize = 1 << 20;

/// A word, and its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// The text, with quotes and escapes resolved.
    pub text: String,
    /// The position of its first byte in the file.
    pub at: Position,
}

/// The context of a line: for the pseudo-variables `.FILE`, `.LINE` and `.SECTION`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings<'a> {
    pub(super) file_name: &'a str,
    pub(super) section: &'a str,
    /// File and line; the lexer counts the column.
    pub(super) at: Position,
}

/// Splits a line, without its line end, into words; an empty line or a comment has none.
pub(super) fn words(
    line: &[u8],
    surroundings: Surroundings<'_>,
    environment: &Environment<'_>,
) -> Result<Vec<Word>, Fault> {
    let mut lexer = Lexer { line, at: 0, surroundings, environment, words: Vec::new(), open: None, total: 0 };
    lexer.run()?;
    Ok(lexer.words)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quote {
    None,
    Single,
    Double,
}

struct Lexer<'a> {
    line: &'a [u8],
    at: usize,
    surroundings: Surroundings<'a>,
    environment: &'a Environment<'a>,
    words: Vec<Word>,
    /// The current word: its bytes, and the column of its beginning. Empty quotes begin a word too.
    open: Option<(Vec<u8>, usize)>,
    total: usize,
}

impl Lexer<'_> {
    fn run(&mut self) -> Result<(), Fault> {
        let mut quote = Quote::None;
        let mut quote_at = 0;
        while let Some(byte) = self.line.get(self.at).copied() {
            match (byte, quote) {
                (b'\'', Quote::Double) | (b'"', Quote::Single) => self.push(byte)?,
                (b'\'' | b'"', Quote::None) => {
                    quote = if byte == b'"' { Quote::Double } else { Quote::Single };
                    quote_at = self.at;
                    self.begin();
                }
                (b'\'' | b'"', _) => quote = Quote::None,
                (b' ' | b'\t', Quote::None) => self.end_word()?,
                (b'#', Quote::None) => break,
                // A line ending of another system.
                (b'\r', Quote::None) if self.line[self.at + 1..].iter().all(|byte| byte.is_ascii_whitespace()) => break,
                (b'\\', Quote::None | Quote::Double) => {
                    self.escape(quote)?;
                    continue;
                }
                (b'$', Quote::Double) => {
                    self.variable()?;
                    continue;
                }
                _ => self.push(byte)?,
            }
            self.at += 1;
        }
        if quote != Quote::None {
            return Err(self.fault(quote_at, "this quote is not closed on its line; close it, or escape it with \\"));
        }
        self.end_word()
    }

    fn fault(&self, at: usize, problem: impl Into<String>) -> Fault {
        Fault::new(self.position(at), problem)
    }

    fn position(&self, at: usize) -> Position {
        Position { column: u32::try_from(at + 1).unwrap_or(u32::MAX), ..self.surroundings.at }
    }

    fn begin(&mut self) {
        let at = self.at;
        self.open.get_or_insert_with(|| (Vec::new(), at));
    }

    fn push(&mut self, byte: u8) -> Result<(), Fault> {
        self.total += 1;
        if self.total > MAX_LINE {
            return Err(self.fault(self.at, format!("the line has more than {MAX_LINE} bytes")));
        }
        if byte == 0 {
            return Err(self.fault(self.at, "a zero byte stands in the line; remove it"));
        }
        self.begin();
        if let Some((bytes, _)) = &mut self.open {
            bytes.push(byte);
        }
        Ok(())
    }

    fn end_word(&mut self) -> Result<(), Fault> {
        let Some((bytes, at)) = self.open.take() else { return Ok(()) };
        if self.words.len() == MAX_WORDS {
            return Err(self.fault(at, format!("the line has more than {MAX_WORDS} words")));
        }
        let text = String::from_utf8(bytes).map_err(|_| self.fault(at, "this word is not UTF-8"))?;
        self.words.push(Word { text, at: self.position(at) });
        Ok(())
    }

    /// Reads a backslash outside of single quotes.
    fn escape(&mut self, quote: Quote) -> Result<(), Fault> {
        let (byte, len) = match self.line.get(self.at + 1).copied() {
            Some(next @ (b' ' | b'\\' | b'#' | b'\'' | b'"')) => (next, 2),
            Some(b'$') if quote == Quote::Double => (b'$', 2),
            Some(b't') => (b'\t', 2),
            Some(b'r') => (b'\r', 2),
            Some(b'n') => (b'\n', 2),
            Some(b'x') => {
                let digits =
                    self.line.get(self.at + 2..self.at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
                let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
                let value = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                (value.ok_or_else(|| self.fault(self.at, "expected two hexadecimal digits after \\x"))?, 4)
            }
            _ => (b'\\', 1),
        };
        self.push(byte)?;
        self.at += len;
        Ok(())
    }

    /// Reads `$NAME`, `${NAME}`, `${NAME-default}` or `${NAME[*]}` within double quotes.
    fn variable(&mut self) -> Result<(), Fault> {
        let dollar = self.at;
        let has_brace = self.line.get(self.at + 1) == Some(&b'{');
        let start = self.at + 1 + usize::from(has_brace);
        let rest = &self.line[start.min(self.line.len())..];
        let is_name = |(index, byte): (usize, &u8)| {
            byte.is_ascii_alphabetic()
                || *byte == b'_'
                || if index == 0 { *byte == b'.' } else { byte.is_ascii_digit() }
        };
        let len = rest.iter().enumerate().take_while(|pair| is_name(*pair)).count();
        let name = String::from_utf8_lossy(&rest[..len]).into_owned();
        if name.is_empty() {
            let problem = "a $ in double quotes begins the name of a variable; write \\$ for the character";
            return Err(self.fault(dollar, problem));
        }
        let (mut default, mut is_list, mut end) = (None, false, start + len);
        if has_brace {
            let inside_len = rest.iter().position(|byte| *byte == b'}');
            let inside = inside_len.map(|inside_len| &rest[len..inside_len.max(len)]);
            let mut inside = inside.ok_or_else(|| self.fault(dollar, "expected } at the end of the variable"))?;
            end += inside.len() + 1;
            if let Some(after) = inside.strip_prefix(b"[*]") {
                (is_list, inside) = (true, after);
            }
            match inside {
                [] => {}
                [b'-', text @ ..] => default = Some(String::from_utf8_lossy(text).into_owned()),
                _ => return Err(self.fault(dollar, "expected }, [*] or -default after the name of the variable")),
            }
        }
        let value = self.value(&name).or(default).unwrap_or_default();
        self.begin();
        for byte in value.bytes() {
            // The list becomes several words, quoted or not.
            if is_list && (byte == b' ' || byte == b'\t') { self.end_word()? } else { self.push(byte)? }
        }
        self.at = end;
        Ok(())
    }

    fn value(&self, name: &str) -> Option<String> {
        match name {
            ".FILE" => Some(self.surroundings.file_name.to_owned()),
            ".LINE" => Some(self.surroundings.at.line.to_string()),
            ".SECTION" => Some(self.surroundings.section.to_owned()),
            _ => self.environment.variable(name).map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Result<Vec<(String, u32)>, Fault> {
        let variables = [("A", "x y"), ("EMPTY", ""), ("P", "80")].map(|(name, value)| (name.into(), value.into()));
        let environment = Environment::new(variables, &|_| Err("none".into()));
        let at = Position { file: 0, line: 7, column: 0 };
        let surroundings = Surroundings { file_name: "f.cfg", section: "web", at };
        let words = words(line.as_bytes(), surroundings, &environment)?;
        Ok(words.into_iter().map(|word| (word.text, word.at.column)).collect())
    }

    #[test]
    fn lines_become_words() {
        let table: &[(&str, &[(&str, u32)])] = &[
            ("", &[]),
            ("   # comment", &[]),
            ("bind :80#x", &[("bind", 1), (":80", 6)]),
            ("\tbind\t:80 \r", &[("bind", 2), (":80", 7)]),
            (r"a\ b c\\d e\#f", &[("a b", 1), (r"c\d", 6), ("e#f", 11)]),
            (r"path_reg ^/x\.y\d+$", &[("path_reg", 1), (r"^/x\.y\d+$", 10)]),
            (r"x HEAD\ /\ HTTP/1.1\r\nHost:\ h", &[("x", 1), ("HEAD / HTTP/1.1\r\nHost: h", 3)]),
            (
                r#"a "b c" 'd "e" \n' "'" "" f"g"h"#,
                &[("a", 1), ("b c", 3), ("d \"e\" \\n", 9), ("'", 20), ("", 24), ("fgh", 27)],
            ),
            (r#""a\"b\$P $P ${P} ${N-q r}${A}""#, &[("a\"b$P 80 80 q rx y", 1)]),
            (r#"a "${A[*]}" "${EMPTY}" b"#, &[("a", 1), ("x", 3), ("y", 9), ("", 13), ("b", 24)]),
            (r#"$P '$P' "$.LINE ${.FILE} ${.SECTION}" \x41"#, &[("$P", 1), ("$P", 4), ("7 f.cfg web", 9), ("A", 39)]),
        ];
        for (line, expected) in table {
            let expected: Vec<_> = expected.iter().map(|(text, at)| ((*text).to_owned(), *at)).collect();
            let found = split(line);
            let texts = |words: &[(String, u32)]| words.iter().map(|word| word.0.clone()).collect::<Vec<_>>();
            assert_eq!(found.as_ref().map(|words| texts(words)), Ok(texts(&expected)), "{line:?}");
            let found = found.expect("words");
            let is_expanded = line.contains("[*]");
            assert!(is_expanded || found == expected, "{line:?}: {found:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_column() {
        let table = [
            ("a \"b", 3, "not closed"),
            ("a 'b", 3, "not closed"),
            ("a \\xg0", 3, "hexadecimal"),
            ("a \"$\"", 4, "name of a variable"),
            ("a \"${P", 4, "expected }"),
            ("a \"${P!}\"", 4, "expected }"),
            ("a \\xff", 3, "UTF-8"),
            ("a\0", 2, "zero byte"),
        ];
        for (line, column, problem) in table {
            let fault = split(line).expect_err(line);
            assert_eq!((fault.at.line, fault.at.column), (7, column), "{line}: {fault}");
            assert!(fault.problem.contains(problem), "{line}: {fault}");
        }
    }
}
