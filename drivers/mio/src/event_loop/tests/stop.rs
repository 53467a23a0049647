//! The process is stopped, or a turn of the loop takes long, while replies come in: they count, not the deadlines.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use cmail_delivery::dispatcher::Mode;
use cmail_delivery::memory_outbox::Mail;
use cmail_delivery::settings::{Hosts, Settings};
use cmail_delivery::time::UnixTime;
use nix::sys::socket;
use tempfile::TempDir;

use super::super::*;
use crate::signals::Controller;

/// Longer than any timeout of a conversation.
const STOP: Duration = Duration::from_secs(3600);

/// Returns an outbox whose mails go to relays of their own, all of which are one listener.
fn relayed(count: usize, port: u16) -> InMemory {
    let mut relayed = InMemory::default();
    for number in 0..count {
        let remote = format!("127.1.{}.{}:{port}", number / 250, number % 250 + 1);
        let mail = Mail::new("", "r@example.org", "x", UnixTime(0));
        relayed.mails.insert(Mail { remote: Some(remote.into()), ..mail }).unwrap();
    }
    relayed
}

/// Bears many connections at once that it has not accepted yet.
fn listener() -> TcpListener {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    socket::listen(&listener, socket::Backlog::new(1000).unwrap()).unwrap();
    listener
}

/// A loop with so many connections that wait for their greeting.
struct Scene {
    event_loop: EventLoop<InMemory>,
    dispatcher: Dispatcher,
    peers: Vec<TcpStream>,
    /// Dropping it would end the run.
    _controller: Controller,
    _directory: TempDir,
}

impl Scene {
    fn new(count: usize) -> Self {
        let listener = listener();
        let outbox = relayed(count, listener.local_addr().unwrap().port());
        let (event_loop, controller, directory) = tests::event_loop(outbox);
        let settings = Settings {
            interval: Duration::from_secs(100_000),
            concurrency: 10_000,
            ..Settings::new("mta.example.org")
        };
        let now = event_loop.kernel.now();
        let dispatcher = Dispatcher::new(now, settings, Hosts::new(), Mode::Daemon, [0; 32]);
        let mut scene = Self {
            event_loop,
            dispatcher,
            peers: Vec::new(),
            _controller: controller,
            _directory: directory,
        };
        listener.set_nonblocking(true).unwrap();
        scene.event_loop.carry_out(&mut scene.dispatcher);
        while scene.peers.len() < count || scene.event_loop.wait(&scene.dispatcher) == Some(Duration::ZERO) {
            scene.iterate();
            while let Ok((peer, _)) = listener.accept() {
                scene.peers.push(peer);
            }
        }
        scene
    }

    fn iterate(&mut self) {
        self.event_loop.iterate(&mut self.dispatcher).unwrap();
    }

    fn all_say(&mut self, text: &[u8]) {
        for peer in &mut self.peers {
            peer.write_all(text).unwrap();
        }
    }

    fn assert_all_were_heard(&self, text: &str) {
        let failures = &self.event_loop.outbox.failures;
        let unheard = failures.iter().find(|failure| !failure.contains(text));
        assert_eq!(unheard, None, "of {}", failures.len());
    }

    /// Both clocks go on, and the process does not.
    fn stop(&mut self) {
        self.event_loop.kernel.clock.origin -= STOP;
    }

    fn iterate_until_recorded(&mut self, count: usize) {
        for _ in 0..10_000 {
            if self.event_loop.outbox.failures.len() >= count {
                return;
            }
            // Nothing is waited for in earnest.
            let now = self.event_loop.kernel.now().monotonic;
            let deadline = self.dispatcher.poll_timeout().map_or(now, |(deadline, _)| deadline);
            self.event_loop.kernel.clock.origin -= deadline.saturating_duration_since(now);
            self.iterate();
        }
        panic!("{} of {count} failures are recorded", self.event_loop.outbox.failures.len());
    }
}

#[test]
fn replies_that_came_while_the_process_was_stopped_count_however_many_they_are() {
    const COUNT: usize = 400;
    let mut scene = Scene::new(COUNT);
    scene.all_say(b"554 5.3.2 not today\r\n");
    scene.stop();
    scene.iterate_until_recorded(COUNT);
    scene.assert_all_were_heard("554 5.3.2 not today");
}

#[test]
fn a_reply_that_comes_during_a_long_turn_of_the_loop_counts() {
    let mut scene = Scene::new(1);
    // The poll has reported nothing, and then the loop is busy with something else.
    scene.event_loop.gather(Some(Duration::ZERO)).unwrap();
    scene.all_say(b"554 5.3.2 not today\r\n");
    scene.stop();
    assert_eq!(scene.event_loop.take_timeout(&mut scene.dispatcher), Flow::GoOn);
    scene.iterate_until_recorded(1);
    scene.assert_all_were_heard("554 5.3.2 not today");
}

#[test]
fn silence_is_noticed_after_a_stop_all_the_same() {
    let mut scene = Scene::new(3);
    scene.stop();
    scene.iterate_until_recorded(3);
    scene.assert_all_were_heard("timed out waiting for the reply to greeting");
}

#[test]
fn what_an_old_clock_would_set_waits_for_a_new_one() {
    let mut scene = Scene::new(1);
    scene.stop();
    scene.event_loop.gather(Some(Duration::ZERO)).unwrap();
    // Stopped again, between the clock and the deadlines.
    scene.stop();
    for expected in [true, false] {
        assert_eq!(scene.event_loop.take_timeout(&mut scene.dispatcher), Flow::GoOn);
        assert_eq!(scene.event_loop.deadlines.is_put_off, expected, "it is put off once, and not for ever");
    }
}
