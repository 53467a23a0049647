//! Replies that do not fit the commands: one too many, one at the wrong time, and those that come just before the end (contract,
//! section 5).

use crate::support::smtp_server::SmtpServer;
use crate::support::{Action, Mail, Script, World};

/// Two mails of one pass: how often each failed, and for good or not, and whether it is gone.
fn pass_over_two(script: Script) -> (World, SmtpServer, [Vec<String>; 2]) {
    let (world, server) = World::with_server(script);
    let ids = ["a", "b"]
        .map(|name| world.insert(&Mail::to(&format!("{name}@example.org")).data(format!("{name}\r\n"))));
    assert_eq!(world.run(&["deliver", "example.org"]).code(), Some(0));
    let told = ids.map(|id| {
        let failures = world.database.failures_of(id);
        let mut told: Vec<String> =
            failures.iter().map(|failure| format!("{} {}", failure.fatal, failure.text)).collect();
        if world.database.row(id).is_none() {
            told.push("delivered".into());
        }
        told
    });
    (world, server, told)
}

#[test]
fn a_refusal_followed_by_a_success_that_nobody_asked_for_is_a_refusal() {
    for keywords in [vec!["PIPELINING"], vec!["8BITMIME"]] {
        for refusal in ["550 5.7.1 spam", "451 4.3.0 later"] {
            let script = Script::new().lenient().keywords([keywords[0]]);
            let script = script.once(".", Action::reply(&format!("{refusal}\r\n250 2.0.0 queued")));
            let (_world, server, [first, second]) = pass_over_two(script);
            assert_eq!(first.len(), 1, "{first:?}");
            assert!(first[0].contains(refusal), "{first:?}");
            assert_eq!(second, ["delivered"]);
            assert_eq!(server.records().delivered_to(), ["b@example.org"]);
        }
    }
}

#[test]
fn a_success_said_twice_takes_no_other_mail() {
    for keywords in [["PIPELINING"], ["8BITMIME"]] {
        let twice = Action::reply("250 2.0.0 queued\r\n250 2.0.0 queued");
        let script = Script::new().lenient().keywords(keywords).once(".", twice);
        let (_world, server, told) = pass_over_two(script);
        assert_eq!(told, [["delivered"], ["delivered"]]);
        let mut delivered = server.records().delivered_to();
        delivered.sort();
        assert_eq!(delivered, ["a@example.org", "b@example.org"], "each once");
    }
}

#[test]
fn a_success_to_data_asks_for_no_message() {
    let script = Script::new().lenient().always("DATA", "250 2.0.0 thank you");
    let (_world, server, told) = pass_over_two(script);
    assert!(server.records().messages.is_empty());
    for failures in told {
        assert!(failures.len() == 1 && failures[0].starts_with("false "), "{failures:?}");
        assert!(failures[0].contains("cannot answer DATA by this"), "{failures:?}");
    }
}

#[test]
fn a_success_after_a_confused_refusal_counts_and_ends_the_connection() {
    // cmail-smtpd says 500 to a line of the message, and 250 to its end.
    let script = Script::new().lenient().once(".", Action::reply("500 what?\r\n250 2.0.0 queued"));
    let (_world, server, told) = pass_over_two(script);
    assert_eq!(told, [["delivered"], ["delivered"]]);
    let records = server.records();
    let used = |connection: usize| {
        records.messages.iter().filter(|message| message.connection == connection).count()
    };
    assert_eq!((used(0), records.connections[0].count("QUIT")), (1, 1), "{}", records.transcript());
}

#[test]
fn a_success_that_comes_with_the_end_of_the_connection_counts() {
    for keywords in [["PIPELINING"], ["8BITMIME"]] {
        let script = Script::new().lenient().keywords(keywords);
        let script = script.always(".", Action::ReplyThenClose("250 2.0.0 queued".into()));
        let (_world, server, told) = pass_over_two(script);
        assert_eq!(told, [["delivered"], ["delivered"]]);
        assert_eq!(server.records().messages.len(), 2);
    }
}
