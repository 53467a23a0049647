//! What a refusal is about: the mail, the connection, or the channel (contract, section 5).

use crate::support::tls::Identity;
use crate::support::{Mail, Script, World};

#[test]
fn a_demand_of_tls_is_temporary_and_the_text_says_why_there_was_none() {
    for command in ["MAIL", "RCPT", "DATA", "."] {
        let script = Script::new()
            .starttls(&Identity::self_signed(&["mx.example.org"]))
            .always("STARTTLS", "454 4.7.0 TLS not available for the moment")
            .always(command, "530 5.7.0 Must issue STARTTLS");
        let (mut world, server) = World::with_server(script);
        world.set("portprio", format!("{0}@starttls {0}", server.port()));
        let failure = world.failure_after_a_pass(&Mail::to("a@example.org"));
        assert!(!failure.fatal, "{failure:?}");
        for text in ["454 4.7.0 TLS not available for the moment", "530 5.7.0 Must issue STARTTLS"] {
            assert!(failure.text.contains(text), "{failure:?}");
        }
    }
}
