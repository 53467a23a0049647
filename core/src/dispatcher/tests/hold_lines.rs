//! Lines of the configuration that hold mail.

use super::*;
use crate::explanation::{Explanation, Subject, Waiting};
use crate::hold::HoldLine;
use crate::mail_pattern::MailPattern;
use crate::order::OrderVerb;

fn line(mail: &str, line: u32) -> HoldLine {
    HoldLine { mail: MailPattern::parse(mail).unwrap(), reason: "moved house".into(), line }
}

fn holding(lines: &[HoldLine]) -> Settings {
    Settings { schedule: Schedule { hold_lines: lines.into(), ..Schedule::default() }, ..settings() }
}

fn take(world: &mut World, lines: &[HoldLine]) {
    let mut settings = world.dispatcher.books.config.settings.clone();
    settings.schedule.hold_lines = lines.into();
    world.input(Input::Settings(Box::new(settings)));
}

fn notes(world: &World) -> Vec<&str> {
    let notes = world
        .events
        .iter()
        .filter_map(|event| if let Event::Note { text, .. } = event { Some(&**text) } else { None });
    notes.filter(|text| text.contains("held")).collect()
}

fn waits_for(world: &World, id: i64) -> Option<Waiting> {
    let Explanation { mail, .. } = world.dispatcher.explain(&Subject::Mail(MailId(id)));
    mail
}

#[test]
fn mail_is_held_as_long_as_a_line_is_about_it() {
    let mut world = World::with(holding(&[line("example.org", 12)]), Mode::Daemon);
    world.domain("example.org", "192.0.2.1");
    let early = world.mail(SENDER, "a@example.org", "x");
    let failed = world.mail(SENDER, "b@example.org", "y");
    world.failed_before(failed, 9, 10, true);
    world.run_for(Duration::from_secs(20_000));
    let late = world.mail(SENDER, "c@example.org", "z");
    world.input(Input::OutboxChanged);
    world.input(Input::TryNow);
    world.run_for(Duration::from_secs(20_000));
    assert_eq!((world.attempts.len(), world.outbox.mails.len()), (0, 3));
    assert_eq!(waits_for(&world, early), Some(Waiting::Held(Some(line("example.org", 12)))));
    assert_eq!(world.dispatcher.held_by_lines(), [(&line("example.org", 12), 3)]);
    let named = "line 12 of the configuration (hold example.org): moved house";
    let told = [
        format!("2 mails, of which the first is mail {early}, are held by {named}"),
        format!("mail {late} is held by {named}"),
    ];
    assert_eq!(notes(&world), told);
    take(&mut world, &[line("sender:<>", 12)]);
    world.run();
    assert_eq!((&*world.outbox.deleted, world.outbox.replaced[0]), (&[early, late][..], failed));
}

#[test]
fn a_line_that_is_added_holds_what_waits_and_what_fails_meanwhile() {
    let mut world = World::with_brief_connections();
    world.domain("example.org", "192.0.2.1").usual = Behaviour::on("RCPT", "450 4.2.0 later");
    let waits = world.mail(SENDER, "a@example.org", "x");
    world.failed_before(waits, 1, 10, false);
    world.slow.insert("commit", Duration::from_secs(10));
    let fails = world.mail(SENDER, "b@example.org", "y");
    world.input(Input::OutboxChanged);
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.attempts.len(), 1, "its failure is being recorded");
    take(&mut world, &[line("example.org", 2)]);
    world.run_for(Duration::from_secs(40_000));
    assert_eq!((world.attempts.len(), world.failures(fails).len()), (1, 1));
    assert_eq!(world.dispatcher.held_by_lines(), [(&line("example.org", 2), 2)]);
}

#[test]
fn mail_that_an_order_names_and_releases_goes_although_the_line_stands() {
    let mut world = World::with(holding(&[line("*", 1)]), Mode::Daemon);
    world.domain("example.org", "192.0.2.1");
    let named = world.mail(SENDER, "a@example.org", "x");
    let other = world.mail(SENDER, "b@example.org", "y");
    world.run();
    world.outbox.order(OrderVerb::Release, [named]);
    world.run();
    assert_eq!(&*world.outbox.deleted, [named]);
    assert_eq!(waits_for(&world, other), Some(Waiting::Held(Some(line("*", 1)))));
}
