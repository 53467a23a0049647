//! Just enough of RFC 5322 and RFC 2046 to take a bounce apart, written apart from the program's composer.

/// A message or a part of one.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Unfolded header fields: name, value.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Part {
    pub(crate) fn parse(octets: &[u8]) -> Self {
        let text = normalise(octets);
        let (head, body) = match find(&text, b"\n\n") {
            _ if text.starts_with(b"\n") => (&text[..0], &text[1..]),
            Some(at) => (&text[..=at], &text[at + 2..]),
            None => (&text[..], &text[..0]),
        };
        Self { headers: fields(head), body: body.to_vec() }
    }

    /// The value of the only field of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "the field {name} stands twice: {:?}", self.headers);
        value
    }

    pub(crate) fn content_type(&self) -> String {
        let value = self.header("Content-Type").unwrap_or("text/plain");
        value.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
    }

    pub(crate) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.decoded()).into_owned();
        text.trim_end_matches('\n').to_owned()
    }

    /// The body, with its transfer encoding undone.
    pub(crate) fn decoded(&self) -> Vec<u8> {
        match self.header("Content-Transfer-Encoding").map(str::to_ascii_lowercase).as_deref() {
            Some("quoted-printable") => quoted_printable(&self.body),
            Some("base64") => {
                use base64::Engine;
                let packed: Vec<u8> =
                    self.body.iter().copied().filter(|o| !o.is_ascii_whitespace()).collect();
                normalise(&base64::engine::general_purpose::STANDARD.decode(packed).unwrap())
            }
            _ => self.body.clone(),
        }
    }

    /// The parts of a multipart body.
    pub(crate) fn parts(&self) -> Vec<Self> {
        let value = self.header("Content-Type").unwrap_or("");
        let boundary = parameter(value, "boundary").unwrap_or_else(|| panic!("no boundary in {value:?}"));
        let delimiter = format!("\n--{boundary}");
        let body = [b"\n", self.body.as_slice()].concat();
        let mut parts = Vec::new();
        let mut rest = body.as_slice();
        let mut started = false;
        while let Some(at) = find(rest, delimiter.as_bytes()) {
            if started {
                parts.push(Self::parse(&rest[..at]));
            }
            rest = &rest[at + delimiter.len()..];
            if rest.starts_with(b"--") {
                return parts;
            }
            let line_end = find(rest, b"\n").unwrap();
            assert!(rest[..line_end].iter().all(u8::is_ascii_whitespace), "text after a boundary");
            // The line end before a delimiter belongs to the delimiter, so it stays for an empty part.
            rest = &rest[line_end..];
            rest = if find(rest, delimiter.as_bytes()) == Some(0) { rest } else { &rest[1..] };
            started = true;
        }
        panic!("the multipart has no closing delimiter");
    }

    /// The groups of fields of a message/delivery-status body (RFC 3464 section 2.1).
    pub(crate) fn field_groups(&self) -> Vec<Self> {
        let text = String::from_utf8_lossy(&self.body).into_owned();
        let groups = text.split("\n\n").filter(|group| !group.trim().is_empty());
        groups
            .map(|group| Self {
                headers: fields(format!("{}\n", group.trim_matches('\n')).as_bytes()),
                body: vec![],
            })
            .collect()
    }
}

/// The value of a parameter of a structured field.
pub(crate) fn parameter(value: &str, name: &str) -> Option<String> {
    value.split(';').skip(1).find_map(|parameter| {
        let (key, value) = parameter.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"').to_owned())
    })
}

/// LF line ends throughout; what is stored may use either.
fn normalise(octets: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(octets.len());
    for (at, octet) in octets.iter().enumerate() {
        if !(*octet == b'\r' && octets.get(at + 1) == Some(&b'\n')) {
            text.push(*octet);
        }
    }
    text
}

fn fields(head: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(head);
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        match (line.starts_with([' ', '\t']), fields.last_mut()) {
            (true, Some((_, value))) => {
                value.push(' ');
                value.push_str(line.trim());
            }
            _ => {
                let (name, value) =
                    line.split_once(':').unwrap_or_else(|| panic!("no header field: {line:?}"));
                fields.push((name.to_owned(), value.trim().to_owned()));
            }
        }
    }
    fields
}

fn quoted_printable(octets: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut rest = octets;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'=' {
            plain.push(*first);
        } else if let Some(after) = rest.strip_prefix(b"\n") {
            rest = after;
        } else {
            let hex = std::str::from_utf8(&rest[..2]).unwrap();
            plain.push(u8::from_str_radix(hex, 16).unwrap());
            rest = &rest[2..];
        }
    }
    plain
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
