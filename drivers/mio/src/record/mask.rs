//! Replaces names, addresses and secrets in a record, the same one always by the same substitute.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cmail_delivery::address::{Domain, MailDomain};
use cmail_delivery::next_hop::{Credentials, Host};

/// The substitute for the announced name of this host, which is the default of transcripts.
pub(super) const ANNOUNCED: &str = "mail.example.org";
/// The credentials in a replay.
pub(super) const CREDENTIALS: &str = "user1:secret99";
/// The substitute for a secret.
const MASK: &str = "***";
/// Shorter secrets are replaced only as whole words: they occur everywhere, and replacing them inside other words would
/// disclose them.
const SECRET_LEAST_OCTETS: usize = 4;
/// Shorter local parts are not replaced in free text, where they are usually other words.
const LOCAL_PART_LEAST_OCTETS: usize = 3;

/// Most local parts that contain word separators, because each is searched in all text. In a strange record with more of
/// them, all text is masked.
const ODD_PARTS_LIMIT: usize = 100;

/// The substitutes of one record so far.
#[derive(Debug, Default)]
pub(super) struct Mask {
    /// By their names in lower case and A-labels.
    names: BTreeMap<String, String>,
    addresses: BTreeMap<IpAddr, IpAddr>,
    /// How many of either kind there are.
    ipv4_addresses: u8,
    ipv6_addresses: u16,
    /// By themselves in lower case.
    local_parts: BTreeMap<String, String>,
    /// The substitutes for local parts.
    masked_parts: BTreeSet<String>,
    /// Local parts that contain word separators, and their substitutes.
    odd_parts: Vec<(String, String)>,
    secrets: Vec<String>,
    /// Secrets that are looked for only as whole words.
    short_secrets: Vec<String>,
    domains: u32,
    hosts: u32,
}

impl Mask {
    /// Creates a mask that knows the name of this host, and the credentials for the relay.
    pub(super) fn new(announce: &str, credentials: Option<&Credentials>) -> Self {
        let mut mask = Self::default();
        if let Ok(name) = Domain::parse(announce) {
            mask.names.insert(name.as_str().to_owned(), ANNOUNCED.to_owned());
        }
        if let Some(Credentials { user, password }) = credentials {
            let secrets = [password, user].into_iter().map(ToString::to_string);
            (mask.secrets, mask.short_secrets) =
                secrets.partition(|secret| secret.len() >= SECRET_LEAST_OCTETS);
            // One may be a part of the other.
            mask.secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        }
        mask
    }

    /// Returns the substitute for an address.
    pub(super) fn address(&mut self, address: IpAddr) -> IpAddr {
        let (ipv4, ipv6) = (&mut self.ipv4_addresses, &mut self.ipv6_addresses);
        *self.addresses.entry(address).or_insert_with(|| match address {
            IpAddr::V4(_) => {
                // Beyond the end of the documentation network all are the same.
                *ipv4 = ipv4.saturating_add(1).min(254);
                IpAddr::V4(Ipv4Addr::new(192, 0, 2, *ipv4))
            }
            IpAddr::V6(_) => {
                *ipv6 = ipv6.saturating_add(1);
                IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, *ipv6))
            }
        })
    }

    /// Returns the substitute for the name of a server.
    pub(super) fn host_name(&mut self, name: &str) -> String {
        let hosts = &mut self.hosts;
        let name = canonical(name);
        let masked = self.names.entry(name).or_insert_with(|| {
            *hosts += 1;
            format!("mx{hosts}.example.net")
        });
        masked.clone()
    }

    /// Returns the substitute for a server, by name or address.
    pub(super) fn host(&mut self, host: &Host) -> Host {
        match host {
            Host::Address(address) => Host::Address(self.address(*address)),
            Host::Name(name) => {
                let masked = self.host_name(name.as_str());
                Domain::parse(&masked).map_or_else(|_| host.clone(), Host::Name)
            }
        }
    }

    /// Returns the substitute for a domain of mail addresses.
    pub(super) fn domain(&mut self, domain: &str) -> String {
        let literal = domain.starts_with('[').then(|| MailDomain::parse(domain).ok()).flatten();
        if let Some(MailDomain::Literal(address)) = literal {
            return match self.address(address) {
                IpAddr::V4(address) => format!("[{address}]"),
                IpAddr::V6(address) => format!("[IPv6:{address}]"),
            };
        }
        let domains = &mut self.domains;
        let masked = self.names.entry(canonical(domain)).or_insert_with(|| {
            *domains += 1;
            match *domains {
                1 => "example.net".to_owned(),
                2 => "example.com".to_owned(),
                number => format!("domain{number}.example.com"),
            }
        });
        masked.clone()
    }

    /// Returns the substitute for a mail address without angle brackets.
    pub(super) fn mailbox(&mut self, mailbox: &str) -> String {
        match mailbox.rsplit_once('@') {
            None if mailbox.is_empty() => String::new(),
            None => self.local_part(mailbox),
            Some((local_part, domain)) => format!("{}@{}", self.local_part(local_part), self.domain(domain)),
        }
    }

    /// Masks a command line without its CRLF, in which credentials are already masked.
    pub(super) fn command(&mut self, line: &str) -> String {
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "EHLO" | "HELO" => format!("{verb} {}", self.announced(argument)),
            "MAIL" | "RCPT" => match (line.find('<'), line.rfind('>')) {
                (Some(begin), Some(end)) if begin < end => {
                    let (before, path) = line.split_at(begin + 1);
                    let (path, after) = path.split_at(end - begin - 1);
                    format!("{before}{}{after}", self.mailbox(path))
                }
                _ => verb.to_owned(),
            },
            _ => line.to_owned(),
        }
    }

    /// Returns the substitute for the name that this host announces.
    pub(super) fn announced(&mut self, announce: &str) -> String {
        if announce.starts_with('[') { self.domain(announce) } else { self.host_name(announce) }
    }

    /// Masks free text of a server or of this system.
    pub(super) fn text(&mut self, text: &str) -> String {
        self.replaced(text, true)
    }

    /// Masks a line of a server's reply to EHLO, whose words are keywords and not local parts.
    pub(super) fn keywords(&mut self, text: &str) -> String {
        self.replaced(text, false)
    }

    fn local_part(&mut self, local_part: &str) -> String {
        if self.masked_parts.contains(local_part) {
            // It has been replaced already.
            return local_part.to_owned();
        }
        let folded = local_part.to_lowercase();
        if let Some(masked) = self.local_parts.get(&folded) {
            return masked.clone();
        }
        let number = self.local_parts.len() + 1;
        let masked = if local_part.eq_ignore_ascii_case("postmaster") {
            "postmaster".to_owned()
        } else if local_part.is_ascii() {
            format!("u{number}")
        } else {
            // It needs SMTPUTF8 as before.
            format!("ü{number}")
        };
        if folded.contains(is_separator) {
            self.odd_parts.push((folded.clone(), masked.clone()));
        }
        self.masked_parts.insert(masked.clone());
        self.local_parts.insert(folded, masked.clone());
        masked
    }

    fn replaced(&mut self, text: &str, is_free: bool) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            text = text.replace(secret.as_str(), MASK);
        }
        if is_free && self.odd_parts.len() > ODD_PARTS_LIMIT {
            return MASK.to_owned();
        }
        for (local_part, masked) in self.odd_parts.iter().take(ODD_PARTS_LIMIT) {
            text = text.replace(local_part.as_str(), masked);
        }
        let mut result = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let end = rest.find(is_separator).unwrap_or(rest.len());
            let (word, behind) = rest.split_at(end);
            result.push_str(&self.word(word, is_free));
            let after = behind.chars().next().map_or(0, char::len_utf8);
            let (separator, behind) = behind.split_at(after);
            result.push_str(separator);
            rest = behind;
        }
        result
    }

    /// Masks a word between separators.
    fn word(&mut self, word: &str, is_free: bool) -> String {
        let bare = word.trim_end_matches(['.', ':', '!', '?']);
        let tail = word.get(bare.len()..).unwrap_or_default();
        if let Some(address) = parse_address(bare) {
            return format!("{}{tail}", self.address(address));
        }
        if let Some((before, domain)) = bare.rsplit_once('@') {
            let begin = before.rfind(['=', ':']).map_or(0, |position| position + 1);
            let (prefix, local_part) = before.split_at(begin);
            let local_part = if local_part.is_empty() { String::new() } else { self.local_part(local_part) };
            let end = domain.find(|sign| !is_name_sign(sign)).unwrap_or(domain.len());
            let (domain, after) = domain.split_at(end);
            let domain = if domain.is_empty() { String::new() } else { self.domain(domain) };
            return format!("{prefix}{local_part}@{domain}{}{tail}", self.pieces(after, is_free));
        }
        self.pieces(word, is_free)
    }

    /// Masks the names in a part of a word.
    fn pieces(&mut self, text: &str, is_free: bool) -> String {
        let mut result = String::with_capacity(text.len());
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find(|sign| !is_name_sign(sign)).unwrap_or(rest.len());
            let (piece, behind) = rest.split_at(end);
            result.push_str(&self.piece(piece, is_free));
            let begin = behind.find(is_name_sign).unwrap_or(behind.len());
            let (between, behind) = behind.split_at(begin);
            result.push_str(between);
            rest = behind;
        }
        result
    }

    fn piece(&mut self, piece: &str, is_free: bool) -> String {
        let bare = piece.trim_end_matches('.');
        let tail = piece.get(bare.len()..).unwrap_or_default();
        if let Some(address) = parse_address(bare) {
            return format!("{}{tail}", self.address(address));
        }
        if is_free && self.short_secrets.iter().any(|secret| secret == bare) {
            return format!("{MASK}{tail}");
        }
        if let Some(masked) = self.names.get(&canonical(bare)).filter(|_| !bare.is_empty()) {
            return format!("{masked}{tail}");
        }
        if is_host_name(bare) {
            return format!("{}{tail}", self.host_name(bare));
        }
        let known = self.local_parts.get(&bare.to_lowercase());
        match known.filter(|_| is_free && bare.len() >= LOCAL_PART_LEAST_OCTETS) {
            Some(masked) => format!("{masked}{tail}"),
            None => piece.to_owned(),
        }
    }
}

fn canonical(name: &str) -> String {
    Domain::parse(name).map_or_else(|_| name.to_lowercase(), |domain| domain.as_str().to_owned())
}

fn parse_address(text: &str) -> Option<IpAddr> {
    let untagged = match text.split_at_checked(5) {
        Some((tag, address)) if tag.eq_ignore_ascii_case("ipv6:") => address,
        _ => text,
    };
    untagged.parse().ok()
}

fn is_separator(sign: char) -> bool {
    sign.is_whitespace() || "<>()[]{}\",;".contains(sign)
}

fn is_name_sign(sign: char) -> bool {
    sign.is_alphanumeric() || matches!(sign, '.' | '-' | '_')
}

/// Returns whether a text is surely the name of a host: it has at least two labels, the last one without digits.
fn is_host_name(text: &str) -> bool {
    let is_top_level = |label: &str| {
        label.len() >= 2 && (label.chars().all(char::is_alphabetic) || label.starts_with("xn--"))
    };
    let top_level = text.rsplit_once('.').map(|(_, label)| label);
    top_level.is_some_and(is_top_level) && Domain::parse(text).is_ok()
}

#[cfg(test)]
mod tests;
