use cmail_delivery::attempt::{Acceptance, Attempt, Server};
use cmail_delivery::next_hop::Host;
use cmail_delivery::outbox::{Commit, Committed, StoreReply, StoreRequest};
use cmail_delivery::reply::{Reply, ReplyCode};
use cmail_delivery::rng::Seed;
use cmail_delivery::shown::ShownAddress;
use cmail_delivery::time::UnixTime;
use std::sync::Arc;

use super::*;
use crate::store::fixture::Fixture;

fn delivered(id: MailId, is_reported: bool) -> DeliveredMail {
    let (host, address) = (Host::Address([192, 0, 2, 1].into()), ([192, 0, 2, 1], 25).into());
    let reply = Reply::new(ReplyCode::new(250).unwrap(), vec![b"taken".as_slice().into()]);
    let attempt = Attempt {
        at: UnixTime(1_700_000_000),
        recipient: ShownAddress::default(),
        course: None,
        result: Acceptance { server: Arc::new(Server { host, address, tls: None }), reply },
    };
    DeliveredMail { id, attempt: Some(attempt), is_reported }
}

fn commit(fixture: &mut Fixture, delivered: Vec<DeliveredMail>) -> Vec<Reported> {
    let reports = Some(Box::new(RelayReports {
        announce: "mail.example.org".into(),
        bounce_from: "postmaster@mail.example.org".into(),
        now: UnixTime(1_700_000_001),
        seed: Seed([1; 32]),
    }));
    let reply = fixture.answer(StoreRequest::Commit(Commit { delivered, reports, ..Commit::default() }));
    let StoreReply::Committed(Committed { reported, refused, .. }) = reply else { panic!("{reply:?}") };
    assert_eq!(refused, []);
    reported
}

const REPORTS: &str = "SELECT count(*) FROM outbox WHERE mail_envelopefrom IS NULL AND mail_remote IS NULL \
    AND mail_envelopeto = 's@example.net' AND CAST(mail_data AS TEXT) LIKE '%Action: relayed%'";

#[test]
fn the_report_comes_with_the_deletion_of_its_mail() {
    let mut fixture = Fixture::new();
    let ids =
        ["a@x.example", "b@x.example"].map(|to| fixture.mail(Some("s@example.net"), to, b"Subject: x\n\ny"));
    let null = fixture.mail(None, "c@x.example", b"x");
    let mails = vec![delivered(ids[0], true), delivered(ids[1], false), delivered(null, true)];
    let reported = commit(&mut fixture, mails);
    assert_eq!(reported.iter().map(|reported| reported.original).collect::<Vec<_>>(), [ids[0]]);
    assert_eq!((fixture.number(REPORTS), fixture.number("SELECT count(*) FROM outbox")), (1, 1));
    assert_eq!(fixture.number("SELECT mail_id FROM outbox"), reported[0].report.0);
    // What is gone is told no more.
    assert_eq!(commit(&mut fixture, vec![delivered(ids[0], true)]), []);
    assert_eq!(fixture.number(REPORTS), 1);
}

#[test]
fn a_report_that_another_program_forbids_costs_no_verdict() {
    let mut fixture = Fixture::new();
    let id = fixture.mail(Some("s@example.net"), "a@x.example", b"x");
    fixture.execute(
        "CREATE TRIGGER no_notices BEFORE INSERT ON outbox WHEN NEW.mail_envelopefrom IS NULL \
         BEGIN SELECT RAISE(ABORT, 'no'); END",
        (),
    );
    assert_eq!(commit(&mut fixture, vec![delivered(id, true)]), []);
    assert_eq!(fixture.number("SELECT count(*) FROM outbox"), 0);
}
