//! Bounces: to whom, in what form, and when there is none (contract, section 6; RFC 3464, 3834, 6522).

use crate::support::database::Row;
use crate::support::dns_server::Behaviour;
use crate::support::mime::{Part, parameter};
use crate::support::{Mail, Script, World};
use std::collections::BTreeSet;

const ORIGINAL: &str = "Message-ID: <original@client.example>\r\nReferences: <thread@client.example>\r\n\
    From: sender@client.example\r\nSubject: the question\r\nX-Long: folded\r\n over two lines\r\n\r\nthe body text\r\n";

/// Runs the daemon until there are so many bounces.
fn bounces(world: &World, count: usize) -> Vec<Row> {
    let daemon = world.start();
    let rows = world.database.wait_for_bounces(count);
    daemon.terminate();
    rows
}

fn parse(row: &Row) -> Part {
    Part::parse(row.data.as_deref().unwrap())
}

/// The delivery-status groups of a bounce: that of the message, then those of the recipients.
fn status(bounce: &Part) -> Vec<Part> {
    bounce.parts()[1].field_groups()
}

/// A world whose server refuses every recipient with this reply.
fn refusing(reply: &str) -> (World, crate::support::SmtpServer) {
    World::with_server(Script::new().always("RCPT", reply))
}

#[test]
fn a_bounce_goes_to_the_sender_with_a_null_sender_by_mx() {
    let (world, _server) = refusing("550 5.1.1 no such user");
    let id = world.insert(&Mail::to("a@example.org").data(ORIGINAL));
    let rows = bounces(&world, 1);
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].from.as_deref(), rows[0].remote.as_deref()), (None, None));
    assert_eq!(rows[0].to, "sender@client.example");
    assert!(world.database.row(id).is_none());
    assert!(world.database.failures_of(id).is_empty());
}

#[test]
fn the_headers_are_those_of_an_automatic_answer() {
    // RFC 3834 section 5, RFC 5322 section 3.6.
    let (world, _server) = refusing("550 5.1.1 no such user");
    world.insert(&Mail::to("a@example.org").data(ORIGINAL));
    let bounce = parse(&bounces(&world, 1)[0]);
    assert!(bounce.header("From").unwrap().contains("postmaster@client.example"));
    assert!(bounce.header("To").unwrap().contains("sender@client.example"));
    assert!(!bounce.header("Subject").unwrap().is_empty());
    assert!(bounce.header("Date").unwrap().contains(':'));
    let message_id = bounce.header("Message-ID").unwrap();
    assert!(message_id.starts_with('<') && message_id.ends_with("@client.example>"), "{message_id}");
    assert_eq!(bounce.header("Auto-Submitted"), Some("auto-replied"));
    assert!(bounce.header("In-Reply-To").unwrap().contains("<original@client.example>"));
    assert!(bounce.header("References").unwrap().contains("<original@client.example>"));
    assert_eq!(bounce.header("MIME-Version"), Some("1.0"));
}

#[test]
fn an_original_without_a_message_id_is_not_referred_to() {
    let (world, _server) = refusing("550 5.1.1 no such user");
    world.insert(&Mail::to("a@example.org").data("Subject: x\r\n\r\nMessage-ID: <not@a.header>\r\n"));
    let bounce = parse(&bounces(&world, 1)[0]);
    assert_eq!((bounce.header("In-Reply-To"), bounce.header("References")), (None, None));
}

#[test]
fn the_report_has_a_readable_part_a_delivery_status_and_the_original() {
    // RFC 6522 section 3, RFC 3464 section 2.
    let (world, _server) = refusing("550 5.1.1 no such user");
    world.insert(&Mail::to("a@example.org").data(ORIGINAL));
    let bounce = parse(&bounces(&world, 1)[0]);
    assert_eq!(bounce.content_type(), "multipart/report");
    let report_type = parameter(bounce.header("Content-Type").unwrap(), "report-type");
    assert_eq!(report_type.as_deref(), Some("delivery-status"));
    let parts = bounce.parts();
    assert_eq!(parts.len(), 3);
    assert_eq!(parts[0].content_type(), "text/plain");
    let text = parts[0].text();
    assert!(text.contains("a@example.org") && text.contains("no such user"), "{text}");
    assert_eq!(parts[1].content_type(), "message/delivery-status");
    assert_eq!(parts[2].content_type(), "message/rfc822");
    let original = Part::parse(&parts[2].decoded());
    assert_eq!(original.header("Subject"), Some("the question"));
    assert_eq!(original.header("X-Long"), Some("folded over two lines"));
    assert_eq!(original.text(), "the body text");
}

#[test]
fn the_delivery_status_tells_everything_about_the_recipient() {
    let (world, server) = refusing("550-5.1.1 no such\r\n550 5.1.1 user");
    world.insert(&Mail::to("a@example.org").data(ORIGINAL));
    let groups = status(&parse(&bounces(&world, 1)[0]));
    assert_eq!(groups.len(), 2, "{groups:?}");
    assert_eq!(groups[0].header("Reporting-MTA").unwrap().replace(' ', ""), "dns;client.example");
    assert!(groups[0].header("Arrival-Date").is_some_and(|date| date.contains(':')));
    let field = |name: &str| groups[1].header(name).unwrap_or_else(|| panic!("no {name}: {groups:?}"));
    assert_eq!(field("Final-Recipient").replace(' ', ""), "rfc822;a@example.org");
    assert_eq!(field("Action"), "failed");
    assert_eq!(field("Status"), "5.1.1");
    assert!(field("Remote-MTA").replace(' ', "").starts_with("dns;mx.example.org"));
    let diagnostic = field("Diagnostic-Code");
    assert!(diagnostic.replace(' ', "").starts_with("smtp;550"), "{diagnostic}");
    assert!(diagnostic.contains("no such") && diagnostic.contains("user"), "{diagnostic}");
    assert!(field("Last-Attempt-Date").contains(':'));
    drop(server);
}

#[test]
fn a_failure_without_a_server_has_a_status_of_its_own() {
    // RFC 3463 section 3.2 and 3.5; RFC 7505 section 4.1.
    let world = World::new();
    world.dns.null_mx("null.example");
    world.insert(&Mail::to("a@nowhere.example").data("1\r\n"));
    world.insert(&Mail::to("b@null.example").data("2\r\n"));
    for row in bounces(&world, 2) {
        let groups = status(&parse(&row));
        let recipient = groups[1].header("Final-Recipient").unwrap();
        let expected = if recipient.ends_with("null.example") { "5.1.10" } else { "5.1.2" };
        assert_eq!(groups[1].header("Status"), Some(expected), "{groups:?}");
        assert_eq!(groups[1].header("Remote-MTA"), None, "there was no remote");
    }
}

#[test]
fn a_mail_that_was_tried_too_often_bounces_with_a_permanent_status() {
    // RFC 3464 section 2.3.4: the status of a failed recipient cannot be temporary in a report of failure.
    let (world, _server) = World::with_server(Script::new().always("RCPT", "450 4.2.0 mailbox busy"));
    let id = world.insert(&Mail::to("a@example.org").data(ORIGINAL));
    (0..4).for_each(|n| world.database.insert_failure(id, "450 4.2.0 an earlier time", false, 5000 + n));
    let groups = status(&parse(&bounces(&world, 1)[0]));
    assert_eq!(groups[1].header("Action"), Some("failed"));
    let status = groups[1].header("Status").unwrap();
    assert!(status.starts_with("5.") || status.starts_with("4."), "{status}");
    assert!(groups[1].header("Diagnostic-Code").unwrap().contains("mailbox busy"));
}

#[test]
fn recipients_of_one_message_that_fail_in_one_pass_share_one_bounce() {
    let script =
        Script::new().when(|c| (c.verb == "RCPT" && !c.line.contains("<ok@")).then(|| "550 5.1.1 no".into()));
    let (world, server) = World::with_server(script);
    let mails = ["a", "ok", "b", "c"].map(|user| Mail::to(&format!("{user}@example.org")).data(ORIGINAL));
    world.database.insert_all(&mails);
    let rows = bounces(&world, 1);
    assert_eq!(rows.len(), 1, "{rows:?}");
    let groups = status(&parse(&rows[0]));
    let named: BTreeSet<String> = groups[1..]
        .iter()
        .map(|group| group.header("Final-Recipient").unwrap().replace("rfc822;", "").trim().to_owned())
        .collect();
    assert_eq!(named, ["a@example.org", "b@example.org", "c@example.org"].map(str::to_owned).into());
    assert_eq!(server.records().delivered_to(), ["ok@example.org"]);
}

#[test]
fn messages_of_other_senders_or_other_data_do_not_appear_in_a_bounce() {
    let (world, _server) = refusing("550 5.1.1 no");
    world.database.insert_all(&[
        Mail::to("a@example.org").from("one@client.example").data("Subject: first\r\n\r\nFIRST SECRET\r\n"),
        Mail::to("b@example.org").from("one@client.example").data("Subject: second\r\n\r\nSECOND SECRET\r\n"),
        Mail::to("c@example.org").from("two@client.example").data("Subject: first\r\n\r\nFIRST SECRET\r\n"),
    ]);
    let rows = bounces(&world, 3);
    for row in rows {
        let text = String::from_utf8_lossy(row.data.as_deref().unwrap()).into_owned();
        let named: Vec<bool> =
            ["a@example.org", "b@example.org", "c@example.org"].map(|a| text.contains(a)).to_vec();
        assert_eq!(named.iter().filter(|named| **named).count(), 1, "{text}");
        assert_eq!(text.contains("SECOND SECRET"), named[1], "{text}");
        assert_eq!(row.to == "two@client.example", named[2]);
    }
}

#[test]
fn bounce_copy_addresses_get_the_bounce_too_over_several_lines() {
    let (mut world, _server) = refusing("550 5.1.1 no");
    world
        .add("bounce_copy", "x@client.example y@client.example x@CLIENT.example")
        .add("bounce_copy", "z@client.example sender@Client.example");
    world.insert(&Mail::to("a@example.org").data(ORIGINAL));
    let rows = bounces(&world, 4);
    let to: BTreeSet<String> = rows.iter().map(|row| row.to.clone()).collect();
    let expected = ["sender", "x", "y", "z"].map(|user| format!("{user}@client.example"));
    assert_eq!(to, expected.into());
    assert!(rows.iter().all(|row| row.data == rows[0].data), "all copies are the same message");
}

#[test]
fn bounce_from_is_the_author_of_bounces() {
    let (mut world, _server) = refusing("550 5.1.1 no");
    world.set("bounce_from", "mailer-daemon@corp.example");
    world.insert(&Mail::to("a@example.org").data(ORIGINAL));
    let bounce = parse(&bounces(&world, 1)[0]);
    assert!(bounce.header("From").unwrap().contains("mailer-daemon@corp.example"));
}

#[test]
fn mail_with_a_null_sender_never_bounces_and_is_deleted() {
    let (mut world, _server) = refusing("550 5.1.1 no");
    world.set("bounce_copy", "x@client.example");
    world.insert(&Mail::to("a@example.org").null_sender().data("1\r\n"));
    world.insert(&Mail::to("b@example.org").from("").data("2\r\n"));
    world.insert(&Mail::to("c@example.org").from("<>").data("3\r\n"));
    let daemon = world.start();
    world.database.wait_until_empty();
    let log = daemon.terminate();
    assert!(log.to_lowercase().contains("warn"), "the loss is logged as a warning:\n{log}");
}

#[test]
fn a_bounce_is_delivered_like_any_mail() {
    let (world, server) = World::with_server(
        Script::new().when(|c| c.line.contains("<nobody@").then(|| "550 5.1.1 no".into())),
    );
    world.insert(&Mail::to("nobody@example.org").from("someone@example.org").data(ORIGINAL));
    let daemon = world.start();
    let records = server.wait_for_messages(1);
    world.database.wait_until_empty();
    let message = &records.accepted()[0];
    assert_eq!((message.from().as_str(), message.to()), ("", vec!["someone@example.org".to_owned()]));
    assert_eq!(Part::parse(&message.data).parts().len(), 3);
    daemon.terminate();
}

#[test]
fn large_originals_come_back_as_headers_only() {
    for (limit, whole) in [(1000, false), (100_000, true)] {
        let (mut world, _server) = refusing("550 5.1.1 no");
        world.set("bounce_return_limit", limit);
        let data = format!("{}{}\r\n", ORIGINAL, "more text more text\r\n".repeat(250));
        world.insert(&Mail::to("a@example.org").data(data));
        let row = bounces(&world, 1).remove(0);
        let parts = parse(&row).parts();
        let expected = if whole { "message/rfc822" } else { "text/rfc822-headers" };
        assert_eq!(parts[2].content_type(), expected);
        assert_eq!(Part::parse(&parts[2].decoded()).header("Subject"), Some("the question"));
        let text = String::from_utf8_lossy(row.data.as_deref().unwrap()).into_owned();
        assert_eq!(text.contains("more text more text"), whole);
    }
}

#[test]
fn what_the_senders_server_might_refuse_for_the_same_reason_comes_back_as_headers() {
    let body = |text: &str| format!("{ORIGINAL}{text}\r\n");
    let (long, nul) = (body(&"x".repeat(999)), body("a\0b"));
    for (verb, reply, data, reason) in [
        (".", "554 no", ORIGINAL, "has refused the message"),
        ("MAIL", "552 5.3.4 too big", ORIGINAL, "has refused the message"),
        ("RCPT", "550 5.7.1 spam", ORIGINAL, "has refused the message"),
        ("RCPT", "550 5.1.1 no", long.as_str(), "lines of more than 998 octets"),
        ("RCPT", "550 5.1.1 no", nul.as_str(), "NUL characters"),
    ] {
        let (world, _server) = World::with_server(Script::new().always(verb, reply));
        world.insert(&Mail::to("a@example.org").data(data));
        let parts = parse(&bounces(&world, 1)[0]).parts();
        assert_eq!(parts[2].content_type(), "text/rfc822-headers", "{reply}");
        assert_eq!(Part::parse(&parts[2].decoded()).header("Subject"), Some("the question"));
        let text = parts[0].text();
        assert!(text.contains(reason) && text.contains("headers"), "{text}");
    }
}

#[test]
fn long_header_sections_come_back_with_the_fields_that_tell_which_message_it_was() {
    // Nearly all that is read at most, and much more than comes back.
    for fields in [2_000, 15_000] {
        let (mut world, _server) = refusing("550 5.1.1 no");
        world.set("bounce_return_limit", 10);
        let data = format!(
            "{}{ORIGINAL}",
            "Received: from a server that is not known at all\r\n by b\r\n".repeat(fields)
        );
        assert!(data.len() > 64 * 1024 && data.len() < 1024 * 1024);
        world.insert(&Mail::to("a@example.org").data(data));
        let bounce = parse(&bounces(&world, 1)[0]);
        assert_eq!(bounce.header("In-Reply-To"), Some("<original@client.example>"));
        let parts = bounce.parts();
        let original = Part::parse(&parts[2].decoded());
        assert_eq!(original.header("Subject"), Some("the question"));
        assert_eq!(parts[0].text().contains("some of them are left out"), fields == 15_000);
    }
}

#[test]
fn a_limit_below_the_size_of_the_headers_cuts_the_body_not_the_headers() {
    let (mut world, _server) = refusing("550 5.1.1 no");
    world.set("bounce_return_limit", 10);
    world.insert(&Mail::to("a@example.org").data(ORIGINAL));
    let parts = parse(&bounces(&world, 1)[0]).parts();
    assert_eq!(parts[2].content_type(), "text/rfc822-headers");
    let original = Part::parse(&parts[2].decoded());
    assert_eq!(original.header("Subject"), Some("the question"));
    assert_eq!(original.header("X-Long"), Some("folded over two lines"));
}

#[test]
fn a_bounce_row_has_the_types_that_other_programs_expect() {
    let (world, _server) = refusing("550 5.1.1 no");
    world.insert(&Mail::to("a@example.org").data(ORIGINAL));
    bounces(&world, 1);
    let types: String = world
        .database
        .connection
        .query_row(
            "SELECT typeof(mail_remote) || ' ' || typeof(mail_envelopefrom) || ' ' || typeof(mail_envelopeto) || ' '
                || typeof(mail_submission) || ' ' || typeof(mail_data) FROM outbox",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(types, "null null text integer text");
}

#[test]
fn strange_originals_come_back_without_breaking_the_report() {
    let originals: [&[u8]; 6] = [
        b"",
        b"no header at all",
        b"Subject: nul \0 and \xff\xfe\r\n\r\n8-bit \xe4\0 body\n.\nbare \r line ends\n",
        b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nhi\r\n--x--\r\n",
        b"Message-ID: <bad\r\n id\r\n>\r\nSubject: folded id\r\n\r\n",
        b"\r\n\r\n\r\n",
    ];
    let (world, _server) = refusing("550 5.1.1 no");
    for original in originals {
        world.insert(&Mail::to("a@example.org").data(original));
    }
    world.insert(&Mail::to("null@example.org").no_data());
    let rows = bounces(&world, originals.len());
    for row in &rows {
        let bounce = parse(row);
        assert_eq!(bounce.parts().len(), 3);
        assert!(status(&bounce).len() >= 2);
        assert!(bounce.header("Subject").is_some());
    }
}

#[test]
fn a_hostile_reply_cannot_add_fields_to_the_report() {
    let (world, _server) =
        refusing("550 5.1.1 no\u{1}\u{1b}[31m --boundary Final-Recipient: rfc822; victim@example.org");
    world.insert(&Mail::to("a@example.org").data(ORIGINAL));
    let groups = status(&parse(&bounces(&world, 1)[0]));
    assert_eq!(groups.len(), 2);
    let recipient = groups[1].header("Final-Recipient").unwrap().replace(' ', "");
    assert_eq!(recipient, "rfc822;a@example.org");
}

#[test]
fn genbounces_makes_the_bounces_and_sends_nothing() {
    let (world, server) = World::with_server(Script::new());
    let ids = world.database.insert_all(&[
        Mail::to("fatal@example.org").from("x@example.org").data("1\r\n"),
        Mail::to("tired@example.org").from("x@example.org").data("2\r\n"),
        Mail::to("fresh@example.org").from("x@example.org").data("3\r\n"),
        Mail::to("null@example.org").null_sender().data("4\r\n"),
    ]);
    world.database.insert_failure(ids[0], "550 5.1.1 no such user", true, 10);
    (0..5).for_each(|n| world.database.insert_failure(ids[1], "450 later", false, n));
    world.database.insert_failure(ids[3], "550 no", true, 10);
    assert_eq!(world.run(&["genbounces"]).code(), Some(0));
    assert!(server.records().connections.is_empty());
    let left = world.database.ids();
    assert!(
        left.contains(&ids[2])
            && !left.contains(&ids[0])
            && !left.contains(&ids[1])
            && !left.contains(&ids[3])
    );
    let rows = world.database.bounces();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row.to == "x@example.org"));
    let fatal = parse(
        rows.iter()
            .find(|row| String::from_utf8_lossy(row.data.as_deref().unwrap()).contains("fatal@"))
            .unwrap(),
    );
    let groups = status(&fatal);
    assert_eq!(groups[1].header("Status"), Some("5.1.1"), "the old program's failure texts are understood");
}

#[test]
fn failures_recorded_by_an_earlier_run_bounce_at_start() {
    let world = World::new();
    let id = world.insert(&Mail::to("a@example.org").data(ORIGINAL));
    (0..5).for_each(|n| world.database.insert_failure(id, "Failed to reach any MX", false, 10 + n));
    let rows = bounces(&world, 1);
    assert_eq!(rows[0].to, "sender@client.example");
    assert!(world.dns.asked().iter().all(|asked| asked.name != "example.org"), "it was tried again");
}

#[test]
fn a_sender_that_is_no_address_does_not_stop_the_queue() {
    let (world, server) = World::with_server(Script::new().once("RCPT", "550 5.1.1 no"));
    let id = world.insert(&Mail::to("a@example.org").from("not an address"));
    let daemon = world.start();
    world
        .database
        .wait("the bad mail was dealt with", |db| db.row(id).is_none() || !db.failures_of(id).is_empty());
    world.insert(&Mail::to("nobody@example.org").data("x\r\n"));
    world.insert(&Mail::to("good@example.org").data("y\r\n"));
    server.wait("the queue goes on", |records| !records.accepted().is_empty());
    daemon.terminate();
}

#[test]
fn more_recipients_than_one_transaction_holds_share_one_bounce_too() {
    // By the server's refusal in two transactions, and by a domain that does not exist.
    for domain in ["example.org", "nowhere.example"] {
        let (world, _server) = refusing("550 5.1.1 no");
        let mails: Vec<Mail> =
            (0..150).map(|n| Mail::to(&format!("u{n:03}@{domain}")).data(ORIGINAL)).collect();
        world.database.insert_all(&mails);
        let daemon = world.start();
        world.database.wait("all are bounced", |database| {
            let rows = database.outbox();
            !rows.is_empty() && rows.iter().all(|row| row.from.is_none())
        });
        let rows = world.database.bounces();
        daemon.terminate();
        assert_eq!(rows.len(), 1, "bounces for {domain}");
        assert_eq!(status(&parse(&rows[0])).len(), 151);
    }
}

#[test]
fn the_arrival_date_is_the_time_of_submission() {
    let (world, _server) = refusing("550 5.1.1 no");
    let mut mail = Mail::to("a@example.org").data(ORIGINAL);
    mail.submission = Some(1_000_000_000);
    world.insert(&mail);
    let groups = status(&parse(&bounces(&world, 1)[0]));
    assert_eq!(groups[0].header("Arrival-Date"), Some("Sun, 9 Sep 2001 01:46:40 +0000"));
}

#[test]
fn the_readable_part_and_the_status_quote_nothing_but_text() {
    // Fields of a report are ASCII lines (RFC 3464 section 2.1.1), and no line is longer than RFC 5322 allows.
    let (world, _server) = refusing(&format!("550 5.1.1 {} \u{fc}ml\u{e4}ut", "long ".repeat(150)));
    world.insert(&Mail::to("a@example.org").data(ORIGINAL));
    let row = bounces(&world, 1).remove(0);
    let data = row.data.clone().unwrap();
    let longest = data.split(|octet| *octet == b'\n').map(<[u8]>::len).max().unwrap();
    assert!(longest <= 999, "a line has {longest} octets");
    let groups = status(&parse(&row));
    assert!(groups[1].header("Diagnostic-Code").unwrap().is_ascii(), "{groups:?}");
}

#[test]
fn a_sender_of_ascii_gets_a_report_of_ascii_about_an_internationalised_recipient() {
    // RFC 6533 section 3: `utf-8` addresses, in message/delivery-status written with escapes.
    let (world, _server) = World::with_server(Script::new());
    world.insert(&Mail::to("j\u{f6}rg+x@example.org").data(ORIGINAL));
    let bounce = parse(&bounces(&world, 1)[0]);
    let part = bounce.parts()[1].clone();
    assert_eq!(part.content_type(), "message/delivery-status");
    assert!(part.body.is_ascii());
    let groups = status(&bounce);
    assert_eq!(groups[1].header("Final-Recipient"), Some("utf-8; j\\x{F6}rg\\x{2B}x@example.org"));
    assert_eq!(groups[1].header("Status"), Some("5.6.7"));
}

#[test]
fn an_internationalised_original_comes_back_in_ascii_to_a_sender_of_ascii() {
    // RFC 6533 section 4.5, RFC 6532 section 3.7.
    let script = Script::new().keywords(["SMTPUTF8", "8BITMIME"]).always("RCPT", "550 5.1.1 no such user");
    let (world, _server) = World::with_server(script);
    let original = "Subject: gr\u{f6}\u{df}e\r\n\r\ntext = \u{20ac}\r\n";
    world.insert(&Mail::to("j\u{f6}rg@example.org").data(original));
    let row = bounces(&world, 1).remove(0);
    assert!(row.data.as_deref().unwrap().is_ascii());
    let bounce = parse(&row);
    let returned = &bounce.parts()[2];
    assert_eq!(returned.content_type(), "message/global");
    assert_eq!(returned.header("Content-Transfer-Encoding"), Some("quoted-printable"));
    assert_eq!(returned.decoded(), original.replace("\r\n", "\n").as_bytes());
}

#[test]
fn recipients_of_one_message_at_two_destinations_get_two_bounces() {
    let (world, server) = refusing("550 5.1.1 no");
    world.route("other.example", &server);
    world
        .database
        .insert_all(&[Mail::to("a@example.org").data(ORIGINAL), Mail::to("b@other.example").data(ORIGINAL)]);
    let rows = bounces(&world, 2);
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!(status(&parse(&row)).len(), 2);
    }
}

#[test]
fn many_bounces_hold_up_no_other_mail_and_end_in_time() {
    let (world, server) = World::with_server(Script::new());
    world
        .database
        .connection
        .execute_batch(
            "BEGIN IMMEDIATE;
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
             INSERT INTO outbox (mail_envelopefrom, mail_envelopeto, mail_data)
             SELECT 's' || i || '@gone.example', 'u' || i || '@d' || (i % 100) || '.example', 'Subject: ' || i FROM n;
             INSERT INTO faillog (fail_mail, fail_message, fail_fatal) SELECT mail_id, '550 no', 1 FROM outbox;
             COMMIT",
        )
        .unwrap();
    // The bounces stay where they are.
    world.dns.behave("gone.example", Behaviour::Drop);
    world.insert(&Mail::to("other@example.org"));
    let daemon = world.start();
    server.wait_for_messages(1);
    daemon.terminate();
    let count =
        |sql: &str| -> i64 { world.database.connection.query_row(sql, [], |row| row.get(0)).unwrap() };
    let given_up = || count("SELECT count(*) FROM outbox WHERE mail_envelopeto LIKE 'u%'");
    let waiting = given_up();
    assert!(
        waiting > 15_000,
        "the other mail has waited for nearly all bounces: {waiting} are still to be made"
    );
    assert_eq!(waiting + count("SELECT count(*) FROM outbox WHERE mail_envelopefrom IS NULL"), 20_000);
    assert_eq!(world.run(&["genbounces"]).code(), Some(0));
    assert_eq!(given_up(), 0);
}
