//! Translates expressions of PCRE to those of sluice's engine, which matches in linear time.
//!
//! The same characters may mean different things to both: `\<`, `\v`, `\h`, `&&`, `--` and brackets within classes, `$` before
//! a last line end, possessive quantifiers, `(?R)`. So an expression is parsed as PCRE2 parses it without UTF
//! (pcre2pattern(3)), and written anew. Constructs that the engine lacks, such as look-around and back references, are
//! refused by their names.

/// The end of the text, or before a line end there.
const END: &str = r"(?:\n?\z)";

/// The classes with a name.
const NAMED: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

/// The expression in the engine's syntax, for its mode without Unicode. The error names what cannot be expressed.
pub(super) fn translate(pattern: &str) -> Result<String, String> {
    let out = String::with_capacity(pattern.len() + 16);
    let mut translator = Translator { rest: pattern.as_bytes(), out, modes: vec![Modes::default()], groups: 0 };
    translator.run()?;
    Ok(translator.out)
}

/// The options that change how the rest of a group is read.
#[derive(Clone, Copy, Default)]
struct Modes {
    /// `(?m)`.
    multiline: bool,
    /// `(?x)`.
    extended: bool,
}

struct Translator<'p> {
    rest: &'p [u8],
    out: String,
    /// Those of the open groups, the innermost last.
    modes: Vec<Modes>,
    /// Groups with a number so far.
    groups: u32,
}

impl<'p> Translator<'p> {
    fn next(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn accept(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text.as_bytes());
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Consumes the input up to and including a text, and returns the part before the text.
    fn until(&mut self, end: &str) -> Option<&'p [u8]> {
        let len = memchr::memmem::find(self.rest, end.as_bytes())?;
        let inside = &self.rest[..len];
        self.rest = &self.rest[len + end.len()..];
        Some(inside)
    }

    fn modes(&self) -> Modes {
        self.modes.last().copied().unwrap_or_default()
    }

    fn run(&mut self) -> Result<(), String> {
        while let Some(byte) = self.next() {
            match byte {
                b'\\' => self.escape()?,
                b'[' => self.class()?,
                b'(' => self.group()?,
                b')' => {
                    self.modes.truncate((self.modes.len() - 1).max(1));
                    self.out.push(')');
                }
                b'$' if !self.modes().multiline => self.out.push_str(END),
                b'*' | b'+' | b'?' => {
                    self.out.push(byte.into());
                    self.after_quantifier()?;
                }
                b'{' => self.brace()?,
                b'#' if self.modes().extended => self.skip_line(),
                _ if self.modes().extended && (byte.is_ascii_whitespace() || byte == 0x0b) => {}
                b'.' | b'^' | b'$' | b'|' => self.out.push(byte.into()),
                byte => self.literal(byte),
            }
        }
        Ok(())
    }

    fn skip_line(&mut self) {
        if self.until("\n").is_none() {
            self.rest = &[];
        }
    }

    /// A byte that stands for itself.
    fn literal(&mut self, byte: u8) {
        match byte {
            b'<' | b'>' | b'/' | b'_' => self.out.push(byte.into()),
            _ if byte.is_ascii_alphanumeric() => self.out.push(byte.into()),
            b'!'..=b'~' => self.out.extend(['\\', byte.into()]),
            _ => self.out.push_str(&format!("\\x{byte:02X}")),
        }
    }

    fn after_quantifier(&mut self) -> Result<(), String> {
        if self.accept("+") {
            return Err("possessive quantifiers such as a++ are not supported".to_owned());
        }
        if self.accept("?") {
            self.out.push('?');
        }
        Ok(())
    }

    /// `{2}`, `{2,}`, `{2,3}`, or a brace that stands for itself.
    fn brace(&mut self) -> Result<(), String> {
        let inside = memchr::memchr(b'}', self.rest).map(|len| &self.rest[..len]);
        let is_number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
        let quantifier = inside.filter(|inside| match memchr::memchr(b',', inside) {
            None => is_number(inside),
            Some(comma) => is_number(&inside[..comma]) && inside[comma + 1..].iter().all(u8::is_ascii_digit),
        });
        let Some(inside) = quantifier else {
            self.literal(b'{');
            return Ok(());
        };
        self.rest = &self.rest[inside.len() + 1..];
        self.out.push('{');
        self.out.extend(inside.iter().map(|byte| char::from(*byte)));
        self.out.push('}');
        self.after_quantifier()
    }

    /// Translates an escape outside of classes, from behind its backslash.
    fn escape(&mut self) -> Result<(), String> {
        let byte = self.next().ok_or("it ends with a backslash")?;
        match byte {
            b'd' | b'D' | b'w' | b'W' | b's' | b'S' | b'b' | b'B' | b'A' | b'z' => self.out.extend(['\\', byte.into()]),
            b'Z' => self.out.push_str(END),
            b'h' => self.out.push_str(r"[\t \xA0]"),
            b'H' => self.out.push_str(r"[^\t \xA0]"),
            b'v' => self.out.push_str(r"[\n\x0B\f\r\x85]"),
            b'V' => self.out.push_str(r"[^\n\x0B\f\r\x85]"),
            b'R' => self.out.push_str(r"(?:\r\n|[\n\x0B\f\r\x85])"),
            b'N' => self.out.push_str(r"[^\n]"),
            b'1'..=b'9' => {
                let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                let number = std::iter::once(&byte).chain(&self.rest[..digits]);
                let number = number
                    .fold(0u32, |number, digit| number.saturating_mul(10).saturating_add(u32::from(digit - b'0')));
                if number < 10 || byte > b'7' || number <= self.groups {
                    return Err(format!("back references such as \\{number} are not supported"));
                }
                let value = self.octal(u32::from(byte - b'0'), 2)?;
                self.literal(value);
            }
            _ => self.character(byte)?,
        }
        Ok(())
    }

    /// An escape that means the same within classes and outside of them.
    fn character(&mut self, byte: u8) -> Result<(), String> {
        let value = match byte {
            b'Q' => {
                let text = self.until(r"\E").unwrap_or_else(|| std::mem::take(&mut self.rest));
                text.iter().for_each(|byte| self.literal(*byte));
                return Ok(());
            }
            b'E' => return Ok(()),
            b'a' => 0x07,
            b'e' => 0x1b,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'0' => self.octal(0, 2)?,
            b'c' => match self.next() {
                Some(letter @ b' '..=b'~') => letter.to_ascii_uppercase() ^ 0x40,
                _ => return Err("a character is missing after \\c".to_owned()),
            },
            b'x' => self.hexadecimal()?,
            b'o' => {
                let inside = if self.accept("{") { self.until("}") } else { None };
                let text = inside.and_then(|digits| std::str::from_utf8(digits).ok());
                let value = text.and_then(|digits| u8::from_str_radix(digits, 8).ok());
                value.ok_or("expected octal digits in \\o{…}, at most 377")?
            }
            b'p' | b'P' | b'X' => return Err(format!("\\{} (Unicode) is not supported", char::from(byte))),
            b'g' | b'k' => return Err(format!("back references such as \\{} are not supported", char::from(byte))),
            b'C' | b'G' | b'K' => return Err(format!("\\{} is not supported", char::from(byte))),
            _ if byte.is_ascii_alphanumeric() => return Err(format!("\\{} is no escape of PCRE", char::from(byte))),
            byte => byte,
        };
        self.literal(value);
        Ok(())
    }

    /// Up to so many octal digits more.
    fn octal(&mut self, first: u32, most: usize) -> Result<u8, String> {
        let count = self.rest.iter().take(most).take_while(|byte| matches!(byte, b'0'..=b'7')).count();
        let (digits, rest) = self.rest.split_at(count);
        self.rest = rest;
        let value = digits.iter().fold(first, |value, digit| value * 8 + u32::from(digit - b'0'));
        u8::try_from(value).map_err(|_| format!("\\{value:o} is no byte"))
    }

    fn hexadecimal(&mut self) -> Result<u8, String> {
        let digits = match self.accept("{") {
            true => self.until("}").ok_or("expected } after \\x{")?,
            false => {
                let count = self.rest.iter().take(2).take_while(|byte| byte.is_ascii_hexdigit()).count();
                let (digits, rest) = self.rest.split_at(count);
                self.rest = rest;
                digits
            }
        };
        let text = String::from_utf8_lossy(digits);
        if text.is_empty() {
            return Ok(0);
        }
        u8::from_str_radix(&text, 16).map_err(|_| format!("\\x{{{text}}} is no byte"))
    }

    /// A class in brackets.
    fn class(&mut self) -> Result<(), String> {
        self.out.push('[');
        if self.accept("^") {
            self.out.push('^');
        }
        // A bracket at the beginning is one of the characters.
        let mut can_begin = self.peek() == Some(b']');
        if can_begin {
            self.next();
            self.literal(b']');
        }
        let mut is_range = false;
        loop {
            let byte = self.next().ok_or("a class is not closed with ]")?;
            let is_single = match byte {
                b']' => break,
                b'-' if can_begin && self.can_end_range() => {
                    self.out.push('-');
                    (can_begin, is_range) = (false, true);
                    continue;
                }
                b'[' => self.named_class()?,
                b'\\' => self.class_escape()?,
                byte => {
                    self.literal(byte);
                    true
                }
            };
            // The end of one range is not the beginning of another.
            can_begin = is_single && !is_range;
            is_range = false;
        }
        self.out.push(']');
        Ok(())
    }

    /// Whether a single character follows a hyphen.
    fn can_end_range(&self) -> bool {
        match self.rest {
            [] | [b']', ..] | [b'[', b':', ..] => false,
            [b'\\', next, ..] => !b"dDwWsShHvVQE".contains(next),
            _ => true,
        }
    }

    /// `[:alpha:]` within a class, or a bracket that stands for itself. Whether it is a single character.
    fn named_class(&mut self) -> Result<bool, String> {
        let Some(kind @ (b':' | b'.' | b'=')) = self.peek() else {
            self.literal(b'[');
            return Ok(true);
        };
        let end = [kind, b']'];
        let inside = memchr::memmem::find(&self.rest[1..], &end).map(|len| &self.rest[1..=len]);
        let is_name = |byte: &u8| byte.is_ascii_alphabetic() || matches!(byte, b'^' | b'<' | b'>');
        let Some(inside) = inside.filter(|inside| kind != b':' || inside.iter().all(is_name)) else {
            self.literal(b'[');
            return Ok(true);
        };
        let name = String::from_utf8_lossy(inside).into_owned();
        if kind != b':' || !NAMED.contains(&name.trim_start_matches('^')) {
            let kind = char::from(kind);
            return Err(format!("[{kind}{name}{kind}] is not supported"));
        }
        self.rest = &self.rest[inside.len() + 3..];
        self.out.push_str(&format!("[:{name}:]"));
        Ok(false)
    }

    /// Translates an escape in a class, from behind its backslash. Returns whether it is a single character.
    fn class_escape(&mut self) -> Result<bool, String> {
        let byte = self.next().ok_or("a class is not closed with ]")?;
        match byte {
            b'd' | b'D' | b'w' | b'W' | b's' | b'S' => self.out.extend(['\\', byte.into()]),
            b'h' => self.out.push_str(r"\t \xA0"),
            b'v' => self.out.push_str(r"\n\x0B\f\r\x85"),
            b'H' | b'V' | b'B' | b'N' | b'R' => {
                return Err(format!("\\{} in a class is not supported", char::from(byte)));
            }
            b'b' => {
                self.literal(0x08);
                return Ok(true);
            }
            b'1'..=b'7' => {
                let value = self.octal(u32::from(byte - b'0'), 2)?;
                self.literal(value);
                return Ok(true);
            }
            _ => {
                self.character(byte)?;
                return Ok(!matches!(byte, b'Q' | b'E'));
            }
        }
        Ok(false)
    }

    /// Translates the beginning of a group, from behind its parenthesis.
    fn group(&mut self) -> Result<(), String> {
        let outer = self.modes();
        if self.peek() == Some(b'*') {
            return Err("verbs such as (*UTF) are not supported".to_owned());
        }
        if !self.accept("?") {
            self.groups += 1;
            self.modes.push(outer);
            self.out.push('(');
            return Ok(());
        }
        if self.accept("#") {
            return self.until(")").map(|_| ()).ok_or_else(|| "a comment is not closed with )".to_owned());
        }
        for (begin, what) in [
            ("=", "look-ahead"),
            ("!", "look-ahead"),
            ("<=", "look-behind"),
            ("<!", "look-behind"),
            (">", "an atomic group"),
            ("|", "a group with numbers of its own"),
            ("(", "a conditional group"),
            ("P=", "a back reference"),
            ("P>", "recursion"),
            ("&", "recursion"),
            ("R", "recursion"),
            ("+", "recursion"),
            ("C", "a callout"),
        ] {
            if self.rest.starts_with(begin.as_bytes()) {
                return Err(format!("{what}, (?{begin}…), is not supported"));
            }
        }
        for (begin, end) in [("P<", ">"), ("<", ">"), ("'", "'")] {
            if self.accept(begin) {
                let name = self.until(end).ok_or("the name of a group is not closed")?;
                self.out.push_str(&format!("(?P<{}>", String::from_utf8_lossy(name)));
                self.groups += 1;
                self.modes.push(outer);
                return Ok(());
            }
        }
        self.options()
    }

    /// `(?i)` and `(?i:…)`.
    fn options(&mut self) -> Result<(), String> {
        let mut modes = self.modes();
        let (mut written, mut is_on) = (String::new(), true);
        loop {
            match self.next() {
                Some(b'-') if is_on => {
                    is_on = false;
                    written.push('-');
                }
                Some(b'x') if self.peek() != Some(b'x') => modes.extended = is_on,
                Some(option @ (b'i' | b's' | b'U')) => written.push(option.into()),
                Some(b'm') => {
                    modes.multiline = is_on;
                    written.push('m');
                }
                Some(end @ (b')' | b':')) => {
                    let written = written.strip_suffix('-').unwrap_or(&written);
                    if end == b':' {
                        self.out.push_str(&format!("(?{written}:"));
                        self.modes.push(modes);
                    } else {
                        if !written.is_empty() {
                            self.out.push_str(&format!("(?{written})"));
                        }
                        *self.modes.last_mut().ok_or("a parenthesis too many")? = modes;
                    }
                    return Ok(());
                }
                other => {
                    let option = other.map_or_else(String::new, |byte| char::from(byte).to_string());
                    return Err(format!("(?{option}…) is not supported"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::translate;
    use crate::haproxy::rules::Regex;

    /// The results of PCRE2 10.42, as HAProxy 2.6 uses it.
    #[test]
    fn expressions_mean_what_they_mean_to_pcre() {
        let table: &[(&str, &[&str], &[&str])] = &[
            (r"\<word", &["<word"], &["word", "a word"]),
            ("^[a&&b]$", &["a", "b", "&"], &["c", "-"]),
            ("^[a~~b]$", &["a", "b", "~"], &["c"]),
            ("^[[]a[]]$", &["[a]"], &["a", "]a["]),
            ("^[]a]+$", &["a", "]", "]a"], &["[", ""]),
            ("^[^]a]$", &["b", "["], &["a", "]"]),
            ("^[a-]$", &["a", "-"], &["b"]),
            (r"^[\w-]$", &["a", "_", "-"], &[".", ""]),
            (r"^[\d-z]$", &["1", "-", "z"], &["a"]),
            ("^[+--]$", &["+", ",", "-"], &["."]),
            (r"^[\b]$", &["\x08"], &["b"]),
            (r"^[\Qa-c\E]$", &["a", "-", "c"], &["b"]),
            ("^[[:alpha:]_]$", &["a", "_"], &["1", ":"]),
            ("^[[:^alpha:]]$", &["1"], &["a"]),
            ("^[[:]$", &["[", ":"], &["a"]),
            ("a{,2}", &["a{,2}"], &["a", "aa"]),
            ("^a{2}$", &["aa"], &["a", "aaa"]),
            ("^a{2,}?$", &["aa", "aaa"], &["a"]),
            (r"^a$", &["a", "a\n"], &["a\n\n", "ab"]),
            (r"^a\z", &["a"], &["a\n"]),
            (r"\Aa\Z", &["a", "a\n"], &["ba"]),
            ("(?m)^b$", &["a\nb\nc"], &["ab"]),
            (r"^\Qa.b\E$", &["a.b"], &["axb"]),
            (r"^\h\H$", &[" x", "\tx"], &["xx", "\nx"]),
            (r"^a\vb$", &["a\nb", "a\rb"], &["a b"]),
            (r"^a\Rb$", &["a\r\nb", "a\nb"], &["ab"]),
            (r"^\101\x42\e\cA\0$", &["AB\x1b\x01\0"], &["AB"]),
            (r"^\x{61}\o{142}$", &["ab"], &["a"]),
            ("(?x) a b # c\n c", &["abc"], &["a b c"]),
            ("(?x)^[ #]$", &[" ", "#"], &["a"]),
            ("^(?i)a(?-i:b)$", &["Ab", "ab"], &["AB"]),
            ("^(a(?i)b|c)d$", &["aBd", "Cd"], &["Abd", "cD"]),
            ("^a(?#remark)b$", &["ab"], &["a"]),
            ("^(?<n>a)(?P<m>b)(?'l'c)$", &["abc"], &["ab"]),
            ("^é+$", &["é"], &["éé"]),
            (r"\-\_\:\/\%\@\!", &["-_:/%@!"], &["-"]),
        ];
        for (pattern, yes, no) in table {
            let regex = Regex::new(pattern, false).unwrap_or_else(|problem| panic!("{pattern}: {problem}"));
            for (texts, expected) in [(yes, true), (no, false)] {
                for text in *texts {
                    assert_eq!(regex.compiled.is_match(text.as_bytes()), expected, "{pattern} on {text:?}");
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_expressed_is_named() {
        let table = [
            (r"(a)\1", "back references"),
            (r"(?<n>a)\k<n>", "back references"),
            ("(?P<n>a)(?P=n)", "back reference"),
            ("a(?=b)", "look-ahead"),
            ("a(?!b)", "look-ahead"),
            ("(?<=a)b", "look-behind"),
            ("(?<!a)b", "look-behind"),
            ("a*+", "possessive"),
            ("a{2}+", "possessive"),
            ("(?>a)", "atomic"),
            ("(a(?R)?b)", "recursion"),
            ("(?u)a", "(?u"),
            ("(?(1)a)", "conditional"),
            ("(*UTF)a", "verbs"),
            (r"\p{L}", "Unicode"),
            (r"\K", r"\K"),
            (r"\y", "no escape"),
            ("[[:<:]]a", "[:<:]"),
            ("[[.a.]]", "[.a.]"),
            ("[a", "not closed"),
            ("a\\", "backslash"),
        ];
        for (pattern, expected) in table {
            let problem = translate(pattern).expect_err(pattern);
            assert!(problem.contains(expected), "{pattern}: {problem}");
        }
    }
}
