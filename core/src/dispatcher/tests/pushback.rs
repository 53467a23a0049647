//! Destinations that want fewer connections than they could have.

use super::*;

fn world(mails: usize) -> World {
    let mut world = World::with_brief_connections();
    world.domain("example.org", "192.0.2.1");
    submit(&mut world, mails);
    world
}

fn submit(world: &mut World, mails: usize) {
    for text in 0..mails {
        world.mail(SENDER, "a@example.org", &format!("{text}"));
    }
    world.input(Input::OutboxChanged);
}

/// Runs until so many connections are open.
fn run_until_open(world: &mut World, connections: usize) {
    for _ in 0..10_000 {
        if world.server("192.0.2.1").open.len() == connections {
            return;
        }
        world.run_for(Duration::from_millis(1));
    }
    panic!("there are never {connections} connections");
}

#[test]
fn a_destination_that_does_not_push_back_has_all_its_connections_soon() {
    let mut world = world(5000);
    let begin = world.now.monotonic;
    run_until_open(&mut world, 10);
    assert!(world.now.monotonic.saturating_duration_since(begin) < Duration::from_millis(1200));
}

#[test]
fn a_destination_that_pushes_back_gets_half_the_connections_and_slowly_more() {
    let mut world = world(18_000);
    run_until_open(&mut world, 8);
    // The server wants no further connection.
    world.server("192.0.2.1").next.push_back(Behaviour::on("greeting", "421 too many connections"));
    let refused = world.server("192.0.2.1").connections + 1;
    while world.server("192.0.2.1").connections < refused {
        world.run_for(Duration::from_millis(1));
    }
    // What a connection has claimed it still sends.
    world.run_for(Duration::from_secs(2));
    world.server("192.0.2.1").most_open = 0;
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.server("192.0.2.1").most_open.max(world.server("192.0.2.1").open.len()), 5);
    run_until_open(&mut world, 6);
    world.run();
    assert_eq!(world.outbox.deleted.len(), 18_000);
}

#[test]
fn what_a_destination_bears_is_known_in_its_next_pass() {
    let mut world = world(1);
    world.server("192.0.2.1").next = vec![Behaviour::on("greeting", "450 slow down"); 2].into();
    world.run();
    submit(&mut world, 2000);
    world.run_for(Duration::from_millis(400));
    let open = world.server("192.0.2.1").most_open;
    assert_eq!(open, 1);
    world.run();
}

#[test]
fn a_server_that_bears_two_connections_is_not_asked_for_many_more() {
    let mut world = world(3000);
    let mut taken = 0;
    while !world.outbox.mails.is_empty() && taken < 3000 {
        let open = world.server("192.0.2.1").open.len();
        let behaviour = if open < 2 { Behaviour::default() } else { Behaviour::on("greeting", "421 busy") };
        world.server("192.0.2.1").usual = behaviour;
        world.run_for(Duration::from_micros(500));
        taken = world.server("192.0.2.1").accepted.len();
    }
    world.run();
    assert!(world.outbox.mails.is_empty());
    let connections = world.server("192.0.2.1").connections;
    assert!(connections < 20, "{connections}");
}
