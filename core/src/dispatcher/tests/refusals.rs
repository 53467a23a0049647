//! What a refusal is about: the mail, the connection, or the channel.

use super::*;

const STARTTLS: &str = "250-mx\r\n250 STARTTLS";
const NEEDS_TLS: &str = "530 5.7.0 Must issue STARTTLS";

#[test]
fn where_tls_cannot_be_had_for_the_moment_a_demand_of_it_is_no_verdict() {
    for command in ["MAIL", "RCPT", "DATA", "."] {
        let mut world = World::new();
        world.domain("example.org", "192.0.2.1").usual =
            Behaviour::on("EHLO", STARTTLS).and("STARTTLS", "454 4.7.0 no TLS now").and(command, NEEDS_TLS);
        let ids = [1, 2].map(|text| world.mail(SENDER, "a@example.org", &format!("{text}")));
        world.run();
        for id in ids {
            assert_eq!(
                world.failures(id),
                [format!(
                    "Failed to reach any MX: mx.example.org [192.0.2.1]:25: 454 4.7.0 no TLS now (in reply to \
                     STARTTLS); mx.example.org [192.0.2.1]:25: {NEEDS_TLS} (in reply to {}, without TLS) [4.7.0]",
                    match command {
                        "MAIL" => "MAIL FROM",
                        "RCPT" => "RCPT TO",
                        "DATA" => "DATA",
                        _ => "end of data",
                    }
                )]
            );
            assert!(!world.outbox.mails[&id].faillog[0].fatal);
        }
    }
}

#[test]
fn a_demand_of_tls_leads_to_the_next_candidate() {
    for (command, reply) in
        [("greeting", NEEDS_TLS), ("EHLO", "530 first TLS"), ("MAIL", NEEDS_TLS), ("RCPT", "550 5.7.10 no")]
    {
        let mut world = World::new();
        let first = world.exchange("example.org", 10, "a.example", "192.0.2.1");
        first.usual = Behaviour::on(command, reply).and("HELO", reply);
        world.exchange("example.org", 20, "b.example", "192.0.2.2");
        let id = world.mail(SENDER, "a@example.org", "x");
        world.run();
        assert_eq!(world.outbox.deleted, [id], "{command}");
        assert_eq!(world.server("192.0.2.2").accepted.len(), 1);
    }
}

#[test]
fn a_demand_of_tls_is_never_fatal_and_says_that_tls_is_not_offered() {
    for command in ["greeting", "HELO", "MAIL", "RCPT", "DATA", "."] {
        let mut world = World::new();
        let behaviour = Behaviour::on(command, NEEDS_TLS);
        world.domain("example.org", "192.0.2.1").usual =
            if command == "HELO" { behaviour.and("EHLO", "500 what") } else { behaviour };
        let id = world.mail(SENDER, "a@example.org", "x");
        world.run();
        let failures = world.failures(id);
        assert!(failures.len() == 1 && failures[0].contains(NEEDS_TLS), "{failures:?}");
        assert_eq!(
            failures[0].contains("without TLS, as STARTTLS is not offered"),
            !matches!(command, "greeting" | "HELO"),
            "{failures:?}"
        );
        assert!(!world.outbox.mails[&id].faillog[0].fatal);
    }
}

#[test]
fn what_a_candidate_has_taken_before_it_demands_tls_stays_taken() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("RCPT TO:<b@", NEEDS_TLS);
    let taken = ["a", "c", "d"].map(|name| world.mail(SENDER, &format!("{name}@example.org"), name));
    let refused = world.mail(SENDER, "b@example.org", "b");
    world.run();
    assert_eq!(world.failures(refused).len(), 1);
    world.outbox.deleted.sort_unstable();
    assert_eq!(world.outbox.deleted, taken);
}
