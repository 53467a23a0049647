//! The extensions in a server's reply to EHLO (RFC 5321 section 4.1.1.1).

use alloc::vec::Vec;

use crate::reply::Reply;
use crate::sasl::Mechanism;

/// The extensions of one server. Extensions that the server does not advertise are not used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// SIZE (RFC 1870).
    pub size: bool,
    /// The largest message that the server accepts, in octets, if it says so.
    pub size_limit_octets: Option<u64>,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034). The codes are read in any case.
    pub enhanced_status_codes: bool,
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// The known mechanisms of AUTH (RFC 4954), strongest first.
    pub auth: Vec<Mechanism>,
}

impl Extensions {
    /// Reads a reply to EHLO. Keywords that are not understood are skipped: they are unknown extensions.
    pub fn parse(reply: &Reply) -> Self {
        let mut extensions = Self::default();
        // The first line names the server.
        for line in reply.lines().skip(1).filter_map(|line| core::str::from_utf8(line).ok()) {
            extensions.take_line(line);
        }
        extensions.auth.sort_unstable();
        extensions.auth.dedup();
        extensions
    }

    fn take_line(&mut self, line: &str) {
        let mut words = line.split_ascii_whitespace();
        let Some(keyword) = words.next() else { return };
        // RFC 5321 section 2.4: keywords are not case-sensitive.
        match keyword.to_ascii_uppercase().as_str() {
            "STARTTLS" => self.starttls = true,
            "SIZE" => {
                self.size = true;
                // RFC 1870 section 4: zero means that there is no fixed limit.
                self.size_limit_octets =
                    words.next().and_then(|limit| limit.parse().ok()).filter(|limit| *limit > 0);
            }
            "8BITMIME" => self.eight_bit_mime = true,
            "SMTPUTF8" => self.smtputf8 = true,
            "ENHANCEDSTATUSCODES" => self.enhanced_status_codes = true,
            "PIPELINING" => self.pipelining = true,
            "AUTH" => self.auth.extend(words.filter_map(Mechanism::parse)),
            upper => {
                // Servers older than RFC 4954 write "AUTH=LOGIN PLAIN".
                if let Some(first) = upper.strip_prefix("AUTH=") {
                    self.auth.extend(Mechanism::parse(first));
                    self.auth.extend(words.filter_map(Mechanism::parse));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
