//! What is said is told while somebody watches, and to nobody else.

use super::*;
use crate::event::Said;
use crate::watch::{Watch, WatchedDestination};

/// Returns what was said since the last look: the connection, the mail, and the first word, or the code of a reply.
fn said(world: &mut World) -> Vec<(u64, Option<i64>, char, String)> {
    let line = |Said { connection, mail, octets }: Said, mark| {
        let text = String::from_utf8_lossy(&octets).into_owned();
        let word = text.split([' ', '-', '\r']).next().unwrap().to_owned();
        (connection.0, mail.map(|id| id.0), mark, word)
    };
    let events = std::mem::take(&mut world.events);
    let told = events.into_iter().filter_map(|event| {
        if let Event::Sent(said) = event {
            Some(line(said, '>'))
        } else if let Event::Received(said) = event {
            Some(line(said, '<'))
        } else if let Event::SentData(said) = event {
            Some(line(Said { octets: "data".into(), ..said }, '>'))
        } else {
            None
        }
    });
    told.collect()
}

fn watch(world: &mut World, destinations: &[&str]) {
    let destinations = destinations.iter().map(|text| WatchedDestination::parse(text).unwrap());
    world.input(Input::Watch(Watch::Destinations(destinations.collect())));
}

#[test]
fn only_what_is_watched_is_told_also_on_connections_that_are_open() {
    let mut world = World::new();
    world.domain("example.org", "192.0.2.1");
    world.domain("example.net", "192.0.2.2");
    let send = |world: &mut World| {
        for domain in ["org", "net"] {
            world.mail(SENDER, &format!("a@example.{domain}"), "text");
        }
        world.input(Input::OutboxChanged);
        world.run_for(Duration::from_secs(1));
    };
    send(&mut world);
    assert_eq!(said(&mut world), []);
    watch(&mut world, &["example.org"]);
    send(&mut world);
    let told = said(&mut world);
    assert_eq!(world.server("192.0.2.1").connections, 1, "the connection was open");
    let words: Vec<&str> = told.iter().map(|(_, _, _, word)| &**word).collect();
    assert_eq!(words, ["MAIL", "250", "RCPT", "250", "DATA", "354", "data", "data", "250"]);
    assert!(
        told.iter().all(|(connection, mail, ..)| (*connection, *mail) == (told[0].0, Some(3))),
        "{told:?}"
    );
    world.input(Input::Watch(Watch::Nothing));
    send(&mut world);
    assert_eq!(said(&mut world), []);
    world.input(Input::Watch(Watch::Everything));
    send(&mut world);
    let mails: std::collections::BTreeSet<_> = said(&mut world).iter().map(|(_, mail, ..)| *mail).collect();
    assert_eq!(mails, [Some(7), Some(8)].into());
    world.run_for(Duration::from_secs(60));
    assert!(said(&mut world).iter().all(|(_, mail, ..)| mail.is_none()), "QUIT is about no mail");
}

/// Where commands go ahead of replies, each line is still told with its mail.
#[test]
fn each_line_is_about_its_mail_where_envelopes_go_ahead() {
    let mut world = World::new();
    let server = world.domain("example.org", "192.0.2.1");
    server.usual = Behaviour::on("EHLO", "250-mx.example.org\r\n250 PIPELINING")
        .times("RCPT TO:<b", "450 later", 1)
        .times("RCPT TO:<b", "250 ok", u32::MAX);
    watch(&mut world, &["example.org"]);
    let ids: Vec<i64> =
        ["a", "b", "c"].map(|name| world.mail(SENDER, &format!("{name}@example.org"), name)).to_vec();
    world.run_for(Duration::from_secs(1));
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(1));
    let told = said(&mut world);
    for id in ids {
        let words: Vec<String> = told
            .iter()
            .filter(|(_, mail, ..)| *mail == Some(id))
            .map(|(_, _, mark, word)| format!("{mark}{word}"))
            .collect();
        let count = |text: &str| words.iter().filter(|word| *word == text).count();
        assert_eq!((count(">MAIL"), count(">RCPT"), count(">DATA")), (1, 1, 1), "{id}: {told:?}");
    }
}
