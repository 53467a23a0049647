//! What a server offers in its reply to EHLO (RFC 5321 section 4.1.1.1).

use alloc::vec::Vec;

use crate::reply::Reply;
use crate::sasl::Mechanism;

/// The extensions of one server. Of those it does not offer nothing is known or used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// SIZE (RFC 1870).
    pub size: bool,
    /// The longest message the server takes, in octets, if it says so.
    pub size_limit_octets: Option<u64>,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034). The codes are read in any case.
    pub enhanced_status_codes: bool,
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// The mechanisms of AUTH (RFC 4954) that we know too, strongest first.
    pub auth: Vec<Mechanism>,
}

impl Extensions {
    /// Reads a reply to EHLO. What cannot be understood is passed over: it is an extension that we do not know.
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
                // Servers from before RFC 4954 write "AUTH=LOGIN PLAIN".
                if let Some(first) = upper.strip_prefix("AUTH=") {
                    self.auth.extend(Mechanism::parse(first));
                    self.auth.extend(words.filter_map(Mechanism::parse));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::ReplyParser;

    fn parse(mut octets: &[u8]) -> Extensions {
        Extensions::parse(&ReplyParser::default().parse(&mut octets).unwrap().unwrap())
    }

    #[test]
    fn keywords_are_read_in_any_case() {
        let extensions = parse(
            b"250-mx.example.org\r\n250-starttls\r\n250-Size 1000\r\n250-8BitMime\r\n250-SMTPUTF8\r\n\
              250-EnhancedStatusCodes\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 auth plain XOAUTH2 scram-sha-256\r\n",
        );
        let expected = Extensions {
            starttls: true,
            size: true,
            size_limit_octets: Some(1000),
            eight_bit_mime: true,
            smtputf8: true,
            enhanced_status_codes: true,
            pipelining: true,
            auth: [Mechanism::ScramSha256, Mechanism::Plain].into(),
        };
        assert_eq!(extensions, expected);
    }

    #[test]
    fn the_name_of_the_server_is_no_extension() {
        assert_eq!(parse(b"250 STARTTLS\r\n"), Extensions::default());
        assert_eq!(parse(b"250-STARTTLS\r\n250-\r\n250 STARTTLSX\r\n"), Extensions::default());
    }

    #[test]
    fn a_size_of_zero_or_none_is_no_limit() {
        // RFC 1870 section 4
        for line in ["SIZE", "SIZE 0", "SIZE many", "SIZE 99999999999999999999999"] {
            let extensions = parse(alloc::format!("250-x\r\n250 {line}\r\n").as_bytes());
            assert_eq!((extensions.size, extensions.size_limit_octets), (true, None), "{line}");
        }
    }

    #[test]
    fn the_old_style_of_auth_is_understood_and_merged() {
        let extensions = parse(b"250-x\r\n250-AUTH LOGIN\r\n250 AUTH=LOGIN PLAIN CRAM-MD5\r\n");
        assert_eq!(extensions.auth, [Mechanism::CramMd5, Mechanism::Plain, Mechanism::Login]);
    }
}
