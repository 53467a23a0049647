//! What the log and the single passes tell the administrator of mail (contract, sections 1 and 4).

use std::collections::BTreeMap;

use crate::support::tls::Identity;
use crate::support::{Action, Mail, Script, SmtpServer, World};

/// The lines of a log that `grep` finds.
fn grep(log: &str, what: &str) -> Vec<String> {
    let lines = log.lines().filter(|line| line.contains(what));
    lines.map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
}

#[test]
fn mail_that_did_not_get_to_a_server_is_found_by_its_recipient_and_so_is_its_bounce() {
    let mut world = World::new();
    world.set("verbosity", 1).set("bounce_copy", "copy@client.example");
    let bob = world.insert(&Mail::to("bob@missing.example"));
    let daemon = world.start();
    world.database.wait("the bounce is there", |database| database.row(bob).is_none());
    daemon.wait_for_output(" given up, ");
    let log = daemon.terminate();
    let found = grep(&log, "bob@");
    assert_eq!(found.len(), 2, "{found:#?}");
    let failed = format!("WARN  mail {bob} to <bob@missing.example> failed permanently: Failed to resolve");
    assert!(found[0].starts_with(&failed), "{found:#?}");
    let bounced = format!(
        "INFO  mail {bob} to <bob@missing.example> given up, bounce {} goes to <sender@client.example>, \
         bounce {} goes to <copy@client.example>",
        bob + 1,
        bob + 2
    );
    assert!(found[1].starts_with(&format!("{bounced} (from=<sender@client.example>")), "{found:#?}");
    assert_eq!(world.database.ids(), [bob + 1, bob + 2]);
}

#[test]
fn a_delivery_says_over_which_tls_it_went() {
    let identity = Identity::self_signed(&["mx.example.org"]);
    let (mut world, server) = World::with_server(Script::new().starttls(&identity));
    world.set("portprio", format!("{}@starttls", server.port()));
    world.insert(&Mail::to("a@example.org"));
    let finished = world.run(&["deliver", "example.org"]);
    let found = grep(&finished.stderr, " delivered to ");
    let expected = format!(
        "delivered to mx.example.org [{}]:{} over TLSv1.3, TLS13_AES_256_GCM_SHA384, X25519MLKEM768, unverified: 250",
        server.ip(),
        server.port()
    );
    assert!(found.len() == 1 && found[0].contains(&expected), "{found:#?}");
}

#[test]
fn mail_that_goes_in_plain_text_after_a_failed_handshake_is_a_warning_with_the_reason() {
    let identity = Identity::self_signed(&["mx.example.org"]);
    let script = Script::new().starttls(&identity).always("STARTTLS", "454 4.7.0 TLS is \"out\"");
    let (mut world, server) = World::with_server(script);
    world.set("portprio", format!("{0}@starttls {0}", server.port())).set("verbosity", 0);
    for data in ["1", "2", "3"] {
        world.insert(&Mail::to("a@example.org").data(data));
    }
    let finished = world.run(&["deliver", "example.org"]);
    let expected = format!(
        "WARN  mx.example.org [{}]:{}: mail goes in plain text: 454 4.7.0 TLS is \"out\" in reply to STARTTLS",
        server.ip(),
        server.port()
    );
    assert_eq!(grep(&finished.stderr, "plain text"), [expected]);
    assert_eq!(server.records().accepted().len(), 3);
}

#[test]
fn single_passes_say_what_they_have_done() {
    let refuse = |code: &'static str| Action::Reply(code.to_owned());
    let script = Script::new().when(move |command| match command.line {
        line if line.contains("later@") => Some(refuse("450 4.2.1 later")),
        line if line.contains("never@") => Some(refuse("550 5.1.1 never")),
        _ => None,
    });
    let (mut world, _server) = World::with_server(script);
    world.set("verbosity", 0);
    for to in ["a", "b", "later", "never"] {
        world.insert(&Mail::to(&format!("{to}@example.org")).data(to));
    }
    let finished = world.run(&["deliver", "example.org"]);
    assert_eq!((finished.code(), &*finished.stdout), (Some(0), "delivered 2, failed 1, deferred 1\n"));
    let finished = world.run(&["genbounces"]);
    assert_eq!((finished.code(), &*finished.stdout), (Some(0), "bounced 1, dropped 0\n"));
    let finished = world.run(&["handoff", "relay.example"]);
    assert_eq!((finished.code(), &*finished.stdout), (Some(0), "delivered 0, failed 0, deferred 0\n"));
}

/// A fate of a mail as the log calls it, and a recipient that meets it.
const FATES: [(&str, &str); 6] = [
    ("delivered", "taken@example.org"),
    ("deferred", "later@example.org"),
    ("failed", "nobody@example.org"),
    ("bounced", "nobody@example.org"),
    ("dropped", "null@example.org"),
    ("uncertain", "doubt@doubt.example"),
];

/// Lets mail meet each fate, and returns the lines of the log, with the id of the mail to each recipient.
fn log_of_all_fates(format: &str) -> (String, BTreeMap<&'static str, i64>) {
    let script =
        Script::new().always(".", "250 2.0.0 Ok: queued as 4XyZ12").when(|command| match command.line {
            line if line.contains("<later@") => Some("450 4.2.0 later".into()),
            line if line.contains("<nobody@") || line.contains("<null@") => {
                Some("550-5.1.1 no such\n550 \"user\"".into())
            }
            _ => None,
        });
    let (mut world, server) = World::with_server(script);
    let doubtful = SmtpServer::start_beside(Script::new().always(".", Action::Close), &server);
    world.route("doubt.example", &doubtful);
    world.set("verbosity", 1).set("logformat", format);
    let mail = |to: &str| {
        let mail = Mail::to(to).data(format!("Message-ID: <id.{to}>\n\nhello\n"));
        if to.starts_with("null@") { mail.null_sender() } else { mail }
    };
    let ids: BTreeMap<&str, i64> = FATES.into_iter().map(|(_, to)| (to, 0)).collect();
    let ids: BTreeMap<&str, i64> = ids.into_keys().map(|to| (to, world.insert(&mail(to)))).collect();
    let daemon = world.start();
    for to in ["taken@example.org", "nobody@example.org", "null@example.org"] {
        world.database.wait("it is done", |database| database.row(ids[to]).is_none());
    }
    for to in ["later@example.org", "doubt@doubt.example"] {
        world.database.wait("it has failed", |database| !database.failures_of(ids[to]).is_empty());
    }
    (daemon.terminate(), ids)
}

#[test]
fn each_verdict_is_one_line_that_is_found_by_all_that_is_known_of_the_mail() {
    let (log, ids) = log_of_all_fates("text");
    let words = [
        ("delivered", " delivered to mx.example.org ["),
        ("deferred", " failed temporarily: 450 4.2.0 later ("),
        ("failed", " failed permanently: 550-5.1.1 no such / 550 \"user\" ("),
        ("bounced", " given up, bounce "),
        ("dropped", " given up and deleted without a bounce, "),
        ("uncertain", " failed temporarily: delivery uncertain"),
    ];
    for ((fate, to), (_, words)) in FATES.into_iter().zip(words) {
        let beginning = format!(" mail {} to <{to}>{words}", ids[to]);
        let found: Vec<&str> = log.lines().filter(|line| line.contains(&beginning)).collect();
        assert_eq!(found.len(), 1, "{fate}: {log}");
        let sender = if to.starts_with("null@") { "" } else { "sender@client.example" };
        let end = format!(" (from=<{sender}> message_id=<id.{to}> size=");
        let (_, end) = found[0].split_once(&end).unwrap_or_else(|| panic!("{fate}: {end}: {log}"));
        let is_temporary = matches!(fate, "deferred" | "uncertain");
        let end_of_it = if is_temporary { " try=1 next=20" } else { " try=1)" };
        assert!(end.contains(end_of_it) && end.ends_with(')'), "{fate}: {end}");
        let has_course = end.contains(" delays=") && end.contains(" conn=") && end.contains(" n=");
        assert_eq!(has_course, !matches!(fate, "bounced" | "dropped"), "{fate}: {end}");
    }
    let delivered = log.lines().find(|line| line.contains("4XyZ12")).unwrap();
    assert!(delivered.contains("250 2.0.0 Ok: queued as 4XyZ12 (from=<"), "{delivered}");
}

#[test]
fn other_formats_say_the_same_by_keys() {
    let (log, ids) = log_of_all_fates("json");
    let objects: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    for (fate, to) in FATES {
        let is_it = |object: &&serde_json::Value| object["event"] == fate && object["mail"] == ids[to];
        let found: Vec<_> = objects.iter().filter(is_it).collect();
        assert_eq!(found.len(), 1, "{fate}: {log}");
        let object = found[0];
        assert_eq!((&object["recipient"], &object["message_id"]), (&to.into(), &format!("id.{to}").into()));
        assert!(
            object["size"].is_u64() && object["time"].is_string() && object["message"].is_string(),
            "{object}"
        );
        match fate {
            "delivered" => {
                assert_eq!((&object["remote_id"], &object["code"]), (&"4XyZ12".into(), &250.into()))
            }
            "deferred" => {
                assert_eq!((&object["status"], &object["kind"]), (&"4.2.0".into(), &"recipient".into()))
            }
            _ => {}
        }
        let is_attempt = !matches!(fate, "bounced" | "dropped");
        assert_eq!(
            object["host"].is_string() && object["conn"].is_u64() && object["d"].is_number(),
            is_attempt,
            "{object}"
        );
    }
    assert!(objects.iter().any(|object| object["event"] == "note" && object["level"] == "info"));
    let (log, ids) = log_of_all_fates("logfmt");
    for (fate, to) in FATES {
        let pairs =
            [format!(" event={fate} mail={} ", ids[to]), format!(" recipient={to} message_id=id.{to} ")];
        let found = log.lines().filter(|line| pairs.iter().all(|pair| line.contains(pair))).count();
        assert_eq!(found, 1, "{fate}: {log}");
    }
}
