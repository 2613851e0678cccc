//! Secrets, their broken forms, and the search for any part of them in what the program says.

/// A password of letters that stand nowhere else, and of all that means something in a URL.
pub(crate) const PASSWORDS: [&str; 6] =
    ["Xq7vZk9LwPz", "Xq7vZk/9LwPz", "Xq7vZk#9LwPz", "Xq7vZk@9LwPz", "Xq7v:Zk?9LwPz", "Xq7vZk%9LwPz"];

/// Whether any part of the secret is in the text: so many characters in a row, or the numbers of so many bytes.
#[track_caller]
pub(crate) fn assert_hidden(what: &str, secret: &str, text: &str) {
    // Of a key, fewer letters stand in a long log by chance.
    let length = if secret.len() < 20 { 4 } else { 10 };
    for line in secret.lines().filter(|line| !line.starts_with("-----")) {
        for part in line.as_bytes().windows(length.min(line.len()).max(1)) {
            let shown = String::from_utf8_lossy(part);
            assert!(!text.contains(&*shown), "{what}: {shown:?} of a secret is in\n{text}");
            let numbers: Vec<_> = part.iter().map(u8::to_string).collect();
            assert!(!text.contains(&numbers.join(", ")), "{what}: {shown:?} of a secret is, as bytes, in\n{text}");
        }
    }
}

/// What becomes of a PEM text by mistakes of people and tools.
pub(crate) fn broken_pem(pem: &str) -> Vec<(&'static str, String)> {
    let lines: Vec<&str> = pem.lines().collect();
    let body = &lines[1..lines.len() - 1];
    vec![
        ("breaks of two letters", pem.replace('\n', "\\n")),
        ("blanks for breaks", pem.replace('\n', " ")),
        ("tabs for breaks", pem.replace('\n', "\t")),
        ("no breaks", pem.replace('\n', "")),
        ("no first line", lines[1..].join("\n")),
        ("no last line", lines[..lines.len() - 1].join("\n")),
        ("no first and last line", body.join("\n")),
        ("one line of base64", body.concat()),
        ("base64 with blanks", body.join(" ")),
        ("half of it", pem[..pem.len() / 2].to_owned()),
        ("a text before the first line", format!("key: {pem}")),
        ("quotes", format!("'{pem}'")),
        ("four dashes", pem.replace("-----", "----")),
        ("small letters", pem.replace("BEGIN", "begin")),
        ("another end", pem.replace("END ", "END X")),
        ("a letter that is no base64", pem.replacen(body[0], &format!("!{}", body[0]), 1)),
        ("a comment in it", pem.replacen(body[0], &format!("# {}", body[0]), 1)),
        ("all on the first line", pem.replacen('\n', "", 1)),
        (
            "all on the last line",
            pem.trim_end().rsplit_once('\n').map(|(all, end)| format!("{all}{end}")).unwrap_or_default(),
        ),
        ("indented", lines.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")),
    ]
}

/// What becomes of a URL with a password by mistakes.
pub(crate) fn broken_urls(scheme: &str, host: &str, password: &str) -> Vec<String> {
    let mut urls = vec![
        format!("{scheme}://user:{password}@{host}"),
        format!("{scheme}://:{password}@{host}"),
        format!("{scheme}://{password}@{host}"),
        format!("{scheme}://user:{password}@{host}:port/x"),
        format!("{scheme}://user:{password}@"),
        format!("{scheme}:/user:{password}@{host}"),
        format!("{scheme}//user:{password}@{host}"),
        format!("{scheme}:user:{password}@{host}"),
        format!("user:{password}@{host}"),
        format!("http s://user:{password}@{host}"),
        format!(" {scheme}://user:{password}@{host}"),
        format!("ftp://user:{password}@{host}"),
    ];
    // With an @ in the password the rest of it is a good host, as far as anybody can tell.
    if !password.contains('@') {
        urls.extend([format!("{scheme}://user:{password}"), format!("{scheme}://{host}:user:{password}")]);
    }
    urls
}
