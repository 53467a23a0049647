use alloc::string::ToString as _;
use alloc::sync::Arc;
use alloc::vec;

use super::*;
use crate::address::Domain;
use crate::attempt::{Server, Setback, Tried, Unreached};
use crate::command::CommandName;
use crate::next_hop::Host;
use crate::reply::{Reply, ReplyCode};
use crate::status::EnhancedStatus;
use crate::system_error::{NetworkTrouble, SystemError};
use crate::time::UnixTime;
use crate::tls::{CertificateTrouble, Tls, TlsSummary, TlsVersion, Verification};

fn server(name: &str, tls: Option<TlsSummary>) -> Arc<Server> {
    let host = Host::Name(Domain::parse(name).unwrap());
    Arc::new(Server { host, address: "192.0.2.1:25".parse().unwrap(), tls })
}

fn reply(code: u16, lines: &[&str]) -> Reply {
    Reply::new(ReplyCode::new(code).unwrap(), lines.iter().map(|line| line.as_bytes().into()).collect())
}

fn attempt<R>(recipient: &str, result: R) -> Attempt<R> {
    Attempt { at: UnixTime(0), recipient: crate::shown::ShownAddress::new(recipient), course: None, result }
}

#[test]
fn no_text_from_outside_begins_a_line_of_its_own() {
    let id = MailId(1);
    let text = || Box::<str>::from("a\nmail 2 \u{1b}[2J");
    let words = reply(250, &["a\nmail 2 \u{1b}[2J"]);
    let tried = Tried {
        server: server("mx", None),
        setback: Setback::NotConnected(SystemError::new(NetworkTrouble::Other, text())),
    };
    let unreached =
        Unreached { is_relay: false, tried: vec![tried], host: None, status: EnhancedStatus::NO_ANSWER };
    for event in [
        Event::Delivered {
            id,
            attempt: attempt(&text(), Acceptance { server: server("mx", None), reply: words }),
            facts: MailFacts::default(),
        },
        Event::Failed {
            id,
            next_hop: Some(text()),
            attempt: attempt(&text(), Failure::Unreached(Arc::new(unreached))),
            kind: FailureKind::Temporary,
            outlook: None,
            facts: MailFacts::default(),
        },
        Event::Bounced {
            id,
            recipient: text(),
            bounces: vec![(id, text())],
            expired: None,
            facts: MailFacts::default(),
        },
        Event::Dropped { id, recipient: text(), expired: None, facts: MailFacts::default() },
        Event::Note { about: EventName::Note, level: Level::Debug, text: text().into() },
        Event::Sent(Said {
            connection: ConnectionId(0),
            mail: None,
            octets: Bytes::from_static(b"a\nb\x1b"),
        }),
    ] {
        let shown = event.to_string();
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
    }
}

#[test]
fn a_line_has_mail_recipient_server_and_the_servers_words_last() {
    let id = MailId(1);
    let delivered = |tls| Event::Delivered {
        id,
        attempt: attempt(
            "o'a@b.example",
            Acceptance { server: server("mx.b.example", tls), reply: reply(250, &["\"ok\""]) },
        ),
        facts: MailFacts::default(),
    };
    let secure =
        |version, verification| Some(Tls::new(version, verification)).map(|tls| tls.summary(tls.proves()));
    let unverified = Verification::Unverified(CertificateTrouble::Expired);
    let begin = "mail 1 to <o'a@b.example> delivered to mx.b.example [192.0.2.1]:25";
    for (tls, how) in [
        (None, "in plain text"),
        (secure(TlsVersion::V1_3, Verification::Verified), "over TLSv1.3, verified"),
        (secure(TlsVersion::V1_2, unverified), "over TLSv1.2, unverified"),
    ] {
        assert_eq!(delivered(tls).to_string(), alloc::format!("{begin} {how}: 250 \"ok\""));
    }
    let failed = Event::Failed {
        id,
        next_hop: None,
        attempt: attempt(
            "a@b.example",
            Failure::Refused {
                server: server("mx", None),
                reply: reply(550, &["no", "never"]),
                command: CommandName::Rcpt,
                fatal: true,
            },
        ),
        kind: FailureKind::Permanent,
        outlook: None,
        facts: MailFacts::default(),
    };
    assert_eq!(
        failed.to_string(),
        "mail 1 to <a@b.example> failed permanently: 550-no / 550 never (mx [192.0.2.1]:25, in reply to RCPT TO)"
    );
    let bounces = vec![(MailId(4), "me@b.example".into()), (MailId(5), "copy@b.example".into())];
    assert_eq!(
        Event::Bounced {
            id,
            recipient: "a@b.example".into(),
            bounces,
            expired: None,
            facts: MailFacts::default()
        }
        .to_string(),
        "mail 1 to <a@b.example> given up, bounce 4 goes to <me@b.example>, bounce 5 goes to <copy@b.example>"
    );
}

#[test]
fn what_was_sent_and_received_is_shown_as_it_is() {
    let received = Event::Received(Said {
        connection: ConnectionId(2),
        mail: None,
        octets: Bytes::from_static(b"250-a\r\n250 \"b\" \xff\r\n"),
    });
    assert_eq!(received.to_string(), r#"[2] < 250-a / 250 "b" \xff"#);
}
