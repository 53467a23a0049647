use super::*;
use crate::reply::ReplyParser;

fn parse(mut octets: &[u8]) -> Extensions {
    Extensions::parse(&ReplyParser::default().parse(&mut octets).unwrap().unwrap())
}

#[test]
fn keywords_are_read_in_any_case() {
    let extensions = parse(
        b"250-mx.example.org\r\n250-starttls\r\n250-Size 1000\r\n250-8BitMime\r\n250-SMTPUTF8\r\n\
          250-EnhancedStatusCodes\r\n250-PIPELINING\r\n250-Dsn\r\n250-CHUNKING\r\n250 auth plain XOAUTH2 scram-sha-256\r\n",
    );
    let expected = Extensions {
        starttls: true,
        size: true,
        size_limit_octets: Some(1000),
        eight_bit_mime: true,
        smtputf8: true,
        enhanced_status_codes: true,
        pipelining: true,
        dsn: true,
        limits: ServerLimits::default(),
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

#[test]
fn limits_are_read_and_nonsense_is_ignored() {
    // RFC 9422 section 4
    let limits = |line: &str| parse(alloc::format!("250-x\r\n250 {line}\r\n").as_bytes()).limits;
    let all = limits("limits MailMax=20 RCPTMAX=100 NEW=a RCPTDOMAINMAX=1 ODD");
    assert_eq!((all.transactions, all.recipients, all.domains), (Some(20), Some(100), Some(1)));
    assert_eq!(limits("LIMITS RCPTMAX=999999").recipients, Some(999_999));
    for value in ["0", "007", "1000000", "-1", "+1", "ten", "1.5", "", "1;2", "99999999999999999999999"] {
        let line = alloc::format!("LIMITS RCPTMAX={value} MAILMAX=7");
        let expected = ServerLimits { transactions: Some(7), ..ServerLimits::default() };
        assert_eq!(limits(&line), expected, "{value}");
    }
    assert_eq!(limits("LIMITS"), ServerLimits::default());
}
