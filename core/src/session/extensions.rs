//! The extensions in a server's reply to EHLO (RFC 5321 section 4.1.1.1).

use alloc::vec::Vec;

use crate::reply::Reply;
use crate::sasl::Mechanism;

/// Most digits of a limit (RFC 9422 section 4).
const LIMIT_DIGITS: usize = 6;

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
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// LIMITS (RFC 9422).
    pub limits: ServerLimits,
    /// The known mechanisms of AUTH (RFC 4954), strongest first.
    pub auth: Vec<Mechanism>,
}

/// The limits that a server keeps (RFC 9422 section 4). Each is from 1, and absent if the server does not say it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerLimits {
    /// MAILMAX: most transactions on one connection.
    pub transactions: Option<u32>,
    /// RCPTMAX: most recipients of one transaction.
    pub recipients: Option<u32>,
    /// RCPTDOMAINMAX: most different domains of recipients on one connection.
    pub domains: Option<u32>,
}

impl ServerLimits {
    fn take(&mut self, word: &str) {
        let Some((name, value)) = word.split_once('=') else { return };
        let limit = match name.to_ascii_uppercase().as_str() {
            "MAILMAX" => &mut self.transactions,
            "RCPTMAX" => &mut self.recipients,
            "RCPTDOMAINMAX" => &mut self.domains,
            // A server may keep limits that are not known here.
            _ => return,
        };
        // RFC 9422 section 4: one to six digits, the first of which is not 0. Any other value is ignored.
        let is_limit = value.len() <= LIMIT_DIGITS && !value.starts_with(['0', '+']);
        *limit = value.parse().ok().filter(|_| is_limit).or(*limit);
    }
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
            "DSN" => self.dsn = true,
            "LIMITS" => words.for_each(|word| self.limits.take(word)),
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
