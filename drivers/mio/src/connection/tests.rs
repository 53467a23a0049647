use std::io::Write as _;
use std::net::{Shutdown, TcpStream as StdStream};
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::testing::{
    self, Driven, PATIENCE, authority, loopback, nothing, params, pattern, read_octets, serve, source,
    tls_server,
};
use crate::tls::TlsContext;
use cmail_delivery::io::Groups;
use cmail_delivery::system_error::{MachineTrouble, NetworkTrouble, SystemError, TlsTrouble};

/// More than all buffers between the ends hold.
const LARGE_OCTETS: usize = 24 * 1024 * 1024;

fn context() -> (TlsContext, testing::Authority) {
    let authority = authority();
    let context = TlsContext::load_trust(Some(testing::trust_file(&authority).path()), false).unwrap();
    (context, authority)
}

fn start_tls(driven: &mut Driven, context: &TlsContext) {
    let session =
        context.session(&testing::terms("mx.example.org"), driven.connection.remote().ip(), Groups::All);
    driven.connection.start_tls(session);
    assert_eq!(
        driven.wait(&mut nothing),
        Progress::TlsEstablished(testing::tls(cmail_delivery::io::Verification::Verified))
    );
}

#[test]
fn a_refused_connection_is_the_peers_fault() {
    let (listener, address) = loopback();
    drop(listener);
    let failure = match Connection::open(address, None) {
        Err(failure) => Progress::ConnectFailed(failure),
        Ok(_) => Driven::open(address).wait(&mut nothing),
    };
    assert_eq!(
        failure,
        Progress::ConnectFailed(ConnectError::remote(NetworkTrouble::Refused, "Connection refused"))
    );
}

#[test]
fn a_local_address_that_is_not_ours_is_our_fault() {
    let (_listener, address) = loopback();
    let error = Connection::open(address, Some("192.0.2.1".parse().unwrap())).unwrap_err();
    assert!(matches!(&error, ConnectError::Local(error) if error.words.contains("192.0.2.1")), "{error:?}");
}

#[test]
fn the_local_address_is_the_one_that_is_asked_for() {
    let (listener, address) = loopback();
    let local: IpAddr = "127.0.0.2".parse().unwrap();
    let _connection = Connection::open(address, Some(local)).unwrap();
    let (_stream, from) = listener.accept().unwrap();
    assert_eq!(from.ip(), local);
}

#[test]
fn what_this_machine_lacks_is_no_fault_of_the_peer() {
    for (errno, trouble) in [
        (Errno::EMFILE, Err(MachineTrouble::Descriptors)),
        (Errno::ENFILE, Err(MachineTrouble::Descriptors)),
        (Errno::ENOBUFS, Err(MachineTrouble::Memory)),
        (Errno::ENOMEM, Err(MachineTrouble::Memory)),
        (Errno::EADDRNOTAVAIL, Err(MachineTrouble::Ports)),
        (Errno::EADDRINUSE, Err(MachineTrouble::Ports)),
        (Errno::ECONNREFUSED, Ok(NetworkTrouble::Refused)),
        (Errno::ECONNRESET, Ok(NetworkTrouble::Reset)),
        (Errno::ENETUNREACH, Ok(NetworkTrouble::Unreachable)),
        (Errno::EHOSTUNREACH, Ok(NetworkTrouble::Unreachable)),
        (Errno::ETIMEDOUT, Ok(NetworkTrouble::TimedOut)),
        (Errno::EPERM, Ok(NetworkTrouble::Forbidden)),
        (Errno::EACCES, Ok(NetworkTrouble::Forbidden)),
        (Errno::EAFNOSUPPORT, Ok(NetworkTrouble::NoLocalAddress)),
        (Errno::EIO, Ok(NetworkTrouble::Other)),
    ] {
        let expected = match trouble {
            Ok(trouble) => ConnectError::remote(trouble, errno.desc()),
            Err(trouble) => ConnectError::local(trouble, errno.desc()),
        };
        assert_eq!(classify(&errno.into()), expected);
    }
}

#[test]
fn large_transfers_arrive_whole_in_both_directions_in_the_clear() {
    let (address, thread) = serve(|mut stream| {
        let there = pattern(LARGE_OCTETS);
        let mut reading = stream.try_clone().unwrap();
        let reader = std::thread::spawn(move || read_octets(&mut reading, LARGE_OCTETS) == there);
        stream.write_all(&pattern(LARGE_OCTETS)).unwrap();
        reader.join().unwrap()
    });
    let octets = pattern(LARGE_OCTETS);
    let mut driven = Driven::connected(address);
    driven.connection.request_transmit();
    let mut source = source(&octets);
    assert_eq!(driven.receive(LARGE_OCTETS, &mut source), None);
    while driven.connection.wants_transmit || !driven.connection.clear.is_empty() {
        let progress = driven.advance(&mut source);
        assert!(matches!(progress, Progress::Again | Progress::Idle), "{progress:?}");
        if progress == Progress::Idle && !driven.connection.clear.is_empty() {
            assert!(driven.poll(PATIENCE));
        }
    }
    assert!(thread.join().unwrap(), "what the peer received");
    assert!(driven.received == octets, "what was received");
}

#[test]
fn large_transfers_arrive_whole_in_both_directions_under_tls() {
    let (context, authority) = context();
    let config = tls_server::config(&params(&["mx.example.org"]), Some(&authority));
    let (address, thread) = serve(move |stream| {
        let mut stream = tls_server::accept(config, stream);
        // By turns, since this side blocks; the client's side does not.
        let there = pattern(LARGE_OCTETS);
        for part in there.chunks(1024 * 1024) {
            stream.write_all(part).unwrap();
            assert!(read_octets(&mut stream, part.len()) == part, "what the peer received");
        }
        tls_server::finish(stream);
    });
    let octets = pattern(LARGE_OCTETS);
    let mut driven = Driven::connected(address);
    start_tls(&mut driven, &context);
    driven.connection.request_transmit();
    let mut source = source(&octets);
    assert_eq!(driven.receive(LARGE_OCTETS, &mut source), None);
    assert!(driven.received == octets, "what was received");
    assert_eq!(driven.wait(&mut source), Progress::Closed(CloseReason::EndOfFile));
    drop(driven);
    thread.join().unwrap();
}

/// Sends to a peer that does not read, and says how much was pulled when nothing went any more.
fn pulled_until_stuck(driven: &mut Driven) -> usize {
    let mut pulled = 0;
    driven.connection.request_transmit();
    let mut endless = |limit: usize, octets: &mut BytesMut| {
        octets.resize(octets.len() + limit, b'x');
        pulled += limit;
        true
    };
    loop {
        assert!(matches!(driven.advance(&mut endless), Progress::Idle | Progress::Again));
        // The kernel's buffers grow, so that silence for a moment is what says they are full.
        if !driven.connection.writable && !driven.poll(Duration::from_millis(300)) {
            break;
        }
    }
    let mut forbidden = |_: usize, _: &mut BytesMut| -> bool { panic!("pulled although the socket is full") };
    assert_eq!(driven.advance(&mut forbidden), Progress::Idle);
    pulled
}

#[test]
fn a_peer_that_does_not_read_stops_the_pulling_in_the_clear() {
    let (stop, stopped) = mpsc::channel();
    let (address, thread) = serve(move |mut stream| {
        let octets: usize = stopped.recv().unwrap();
        read_octets(&mut stream, octets).len()
    });
    let mut driven = Driven::connected(address);
    let pulled = pulled_until_stuck(&mut driven);
    assert!(driven.connection.clear.len() <= PULL_OCTETS);
    // The rest goes out once the peer reads, and nothing is pulled beside it.
    stop.send(pulled).unwrap();
    driven.connection.wants_transmit = false;
    while !driven.connection.clear.is_empty() {
        assert_eq!(driven.advance(&mut nothing), Progress::Idle);
        assert!(driven.connection.clear.is_empty() || driven.poll(PATIENCE));
    }
    assert_eq!(thread.join().unwrap(), pulled);
}

#[test]
fn a_peer_that_does_not_read_stops_the_pulling_under_tls() {
    let (context, authority) = context();
    let config = tls_server::config(&params(&["mx.example.org"]), Some(&authority));
    let (stop, stopped) = mpsc::channel();
    let (address, thread) = serve(move |stream| {
        let mut stream = tls_server::accept(config, stream);
        let octets: usize = stopped.recv().unwrap();
        let read = read_octets(&mut stream, octets).len();
        tls_server::finish(stream);
        read
    });
    let mut driven = Driven::connected(address);
    start_tls(&mut driven, &context);
    let pulled = pulled_until_stuck(&mut driven);
    assert!(driven.connection.plaintext.len() <= PULL_OCTETS);
    stop.send(pulled).unwrap();
    driven.connection.wants_transmit = false;
    assert_eq!(driven.wait(&mut nothing), Progress::Closed(CloseReason::EndOfFile));
    drop(driven);
    assert_eq!(thread.join().unwrap(), pulled);
}

#[test]
fn one_turn_sends_a_bounded_number_of_octets() {
    let (address, thread) = serve(|mut stream| io::copy(&mut stream, &mut io::sink()).unwrap());
    let mut driven = Driven::connected(address);
    driven.connection.request_transmit();
    let mut pulled = 0;
    let mut endless = |limit: usize, octets: &mut BytesMut| {
        octets.resize(octets.len() + limit, b'x');
        pulled += limit;
        true
    };
    driven.advance(&mut endless);
    assert!((1..=TURN_OCTETS).contains(&pulled), "{pulled}");
    driven.connection.close();
    thread.join().unwrap();
}

#[test]
fn what_comes_in_small_pieces_is_written_at_once() {
    let (listener, address) = loopback();
    let mut driven = Driven::connected(address);
    let (mut peer, _) = listener.accept().unwrap();
    let mut pieces = ["MAIL\r\n", "RCPT\r\n", "DATA\r\n"].into_iter();
    let mut unwritten = Vec::new();
    driven.connection.request_transmit();
    driven.advance(&mut |_, octets| {
        unwritten.push(octets.len());
        let piece = pieces.next().unwrap_or_default();
        octets.extend_from_slice(piece.as_bytes());
        !piece.is_empty()
    });
    assert_eq!(unwritten, [0, 6, 12, 18], "a write came between two pieces");
    assert_eq!(read_octets(&mut peer, 18), b"MAIL\r\nRCPT\r\nDATA\r\n");
}

#[test]
fn a_pull_is_repeated_until_there_is_nothing_and_then_only_on_request() {
    let (address, thread) = serve(|mut stream| {
        let mut read = Vec::new();
        stream.read_to_end(&mut read).unwrap();
        read
    });
    let mut driven = Driven::connected(address);
    let mut parts = [b"MAIL\r\n".as_slice(), &[b'x'; 3 * PULL_OCTETS], b"", b"QUIT\r\n", b""].into_iter();
    let mut calls = 0;
    let mut pull = |_: usize, octets: &mut BytesMut| {
        calls += 1;
        let part = parts.next().unwrap();
        octets.extend_from_slice(part);
        !part.is_empty()
    };
    for _ in 0..2 {
        driven.connection.request_transmit();
        while driven.connection.wants_transmit {
            if driven.advance(&mut pull) == Progress::Idle && !driven.connection.writable {
                assert!(driven.poll(PATIENCE));
            }
        }
        assert_eq!(driven.advance(&mut |_, _| panic!("pulled without a request")), Progress::Idle);
    }
    assert_eq!(calls, 5);
    driven.connection.close();
    let expected = [b"MAIL\r\n".as_slice(), &[b'x'; 3 * PULL_OCTETS], b"QUIT\r\n"].concat();
    assert!(thread.join().unwrap() == expected);
}

#[test]
fn everything_before_the_end_of_file_is_reported_before_it() {
    let (address, thread) = serve(|mut stream| {
        stream.write_all(b"421 bye\r\n").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let _ = io::copy(&mut stream, &mut io::sink());
    });
    let mut driven = Driven::connected(address);
    let end = driven.receive(usize::MAX, &mut nothing);
    assert_eq!(end, Some(Progress::Closed(CloseReason::EndOfFile)));
    assert_eq!(driven.received, b"421 bye\r\n");
    drop(driven);
    thread.join().unwrap();
}

#[test]
fn the_last_words_of_a_peer_that_has_gone_are_reported_although_sending_fails() {
    let (gone, is_gone) = mpsc::channel();
    let (address, thread) = serve(move |mut stream| {
        stream.write_all(b"421 bye\r\n").unwrap();
        drop(stream);
        gone.send(()).unwrap();
    });
    let mut driven = Driven::connected(address);
    is_gone.recv_timeout(PATIENCE).unwrap();
    driven.connection.request_transmit();
    let octets = pattern(LARGE_OCTETS);
    let end = driven.receive(usize::MAX, &mut source(&octets));
    assert!(matches!(end, Some(Progress::Closed(_))), "{end:?}");
    assert_eq!(driven.received, b"421 bye\r\n");
    thread.join().unwrap();
}

/// Lets the last descriptor be closed by a reset.
fn reset(stream: StdStream) {
    let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    setsockopt(&stream, sockopt::Linger, &linger).unwrap();
}

/// Once with something to send, so that the reset is met in writing, and once without.
#[test]
fn what_a_peer_says_before_a_reset_is_reported_before_it() {
    for is_sending in [false, true] {
        let (gone, is_gone) = mpsc::channel();
        let (address, thread) = serve(move |mut stream| {
            stream.write_all(b"250 taken\r\n").unwrap();
            reset(stream);
            gone.send(()).unwrap();
        });
        let mut driven = Driven::connected(address);
        is_gone.recv_timeout(PATIENCE).unwrap();
        if is_sending {
            driven.connection.request_transmit();
        }
        let octets = pattern(if is_sending { LARGE_OCTETS } else { 0 });
        let end = driven.receive(usize::MAX, &mut source(&octets));
        assert!(matches!(end, Some(Progress::Closed(_))), "{end:?}");
        assert_eq!(driven.received, b"250 taken\r\n");
        thread.join().unwrap();
    }
}

/// A server that is full may say so and be gone before this side has looked whether it is connected.
#[test]
fn what_a_peer_says_before_it_resets_a_new_connection_is_received() {
    let (gone, is_gone) = mpsc::channel();
    let (address, thread) = serve(move |mut stream| {
        stream.write_all(b"421 too many\r\n").unwrap();
        reset(stream);
        gone.send(()).unwrap();
    });
    let mut driven = Driven::open(address);
    is_gone.recv_timeout(PATIENCE).unwrap();
    assert_eq!(driven.wait(&mut |_, _| false), Progress::Connected);
    let end = driven.receive(usize::MAX, &mut source(&[]));
    assert!(matches!(end, Some(Progress::Closed(_))), "{end:?}");
    assert_eq!(driven.received, b"421 too many\r\n");
    thread.join().unwrap();
}

#[test]
fn what_a_peer_says_inside_tls_before_a_reset_is_reported_before_it() {
    for is_sending in [false, true] {
        let (context, authority) = context();
        let config = tls_server::config(&params(&["mx.example.org"]), Some(&authority));
        let (gone, is_gone) = mpsc::channel();
        let (address, thread) = serve(move |stream| {
            let mut stream = tls_server::accept(config, stream);
            // What is held back to be sent with more would be dropped.
            stream.sock.set_nodelay(true).unwrap();
            stream.write_all(b"250 taken\r\n").unwrap();
            stream.flush().unwrap();
            reset(stream.sock);
            gone.send(()).unwrap();
        });
        let mut driven = Driven::connected(address);
        start_tls(&mut driven, &context);
        // The end of the handshake goes out.
        driven.advance(&mut nothing);
        is_gone.recv_timeout(PATIENCE).unwrap();
        if is_sending {
            driven.connection.request_transmit();
        }
        let octets = pattern(if is_sending { LARGE_OCTETS } else { 0 });
        let end = driven.receive(usize::MAX, &mut source(&octets));
        assert!(matches!(end, Some(Progress::Closed(CloseReason::Broken(_)))), "{end:?}");
        assert_eq!(driven.received, b"250 taken\r\n");
        thread.join().unwrap();
    }
}

#[test]
fn octets_after_the_answer_to_starttls_belong_to_tls() {
    // RFC 3207 section 6: what was in the clear cannot be taken for what is protected.
    let (context, _authority) = context();
    let (address, thread) = serve(|mut stream| {
        stream.write_all(b"220 go\r\n").unwrap();
        read_octets(&mut stream, 5);
        stream.write_all(b"250 in the clear\r\n").unwrap();
        let _ = io::copy(&mut stream, &mut io::sink());
    });
    let mut driven = Driven::connected(address);
    assert_eq!(driven.receive(8, &mut nothing), None);
    let session = context.session(&testing::terms("mx.example.org"), address.ip(), Groups::All);
    driven.connection.start_tls(session);
    let progress = driven.wait(&mut nothing);
    assert!(matches!(progress, Progress::TlsFailed(_)), "{progress:?}");
    assert_eq!(driven.received, b"220 go\r\n");
    drop(driven);
    thread.join().unwrap();
}

#[test]
fn octets_pulled_before_starttls_go_out_in_the_clear_and_those_after_it_encrypted() {
    let (context, authority) = context();
    let config = tls_server::config(&params(&["mx.example.org"]), Some(&authority));
    let (address, thread) = serve(move |mut stream: StdStream| {
        let clear = read_octets(&mut stream, 10);
        stream.write_all(b"220 go\r\n").unwrap();
        let mut stream = tls_server::accept(config, stream);
        let encrypted = read_octets(&mut stream, 6);
        stream.write_all(b"250 hi\r\n").unwrap();
        tls_server::finish(stream);
        (clear, encrypted)
    });
    let mut driven = Driven::connected(address);
    driven.connection.request_transmit();
    driven.receive(8, &mut source(b"STARTTLS\r\n"));
    start_tls(&mut driven, &context);
    driven.connection.request_transmit();
    assert_eq!(driven.receive(16, &mut source(b"EHLO\r\n")), None);
    assert_eq!(driven.received, b"220 go\r\n250 hi\r\n");
    driven.connection.close();
    assert_eq!(thread.join().unwrap(), (b"STARTTLS\r\n".to_vec(), b"EHLO\r\n".to_vec()));
}

#[test]
fn nothing_is_pulled_during_a_handshake() {
    let (context, authority) = context();
    let config = tls_server::config(&params(&["mx.example.org"]), Some(&authority));
    let (address, thread) = serve(move |stream| {
        let mut stream = tls_server::accept(config, stream);
        read_octets(&mut stream, 6)
    });
    let mut driven = Driven::connected(address);
    driven.connection.start_tls(context.session(
        &testing::terms("mx.example.org"),
        address.ip(),
        Groups::All,
    ));
    driven.connection.request_transmit();
    let mut forbidden = |_: usize, _: &mut BytesMut| -> bool { panic!("pulled during the handshake") };
    let progress = driven.wait(&mut forbidden);
    assert_eq!(progress, Progress::TlsEstablished(testing::tls(cmail_delivery::io::Verification::Verified)));
    let mut source = source(b"EHLO\r\n");
    while driven.connection.wants_transmit {
        driven.advance(&mut source);
    }
    driven.connection.close();
    assert_eq!(thread.join().unwrap(), b"EHLO\r\n");
}

#[test]
fn tls_that_ends_without_close_notify_is_broken() {
    // RFC 8446 section 6.1.
    let (context, authority) = context();
    let config = tls_server::config(&params(&["mx.example.org"]), Some(&authority));
    let (address, thread) = serve(move |stream| {
        let stream = tls_server::accept(config, stream);
        stream.sock.shutdown(Shutdown::Write).unwrap();
        let mut socket = stream.sock;
        let _ = io::copy(&mut socket, &mut io::sink());
    });
    let mut driven = Driven::connected(address);
    start_tls(&mut driven, &context);
    let progress = driven.wait(&mut nothing);
    assert!(matches!(progress, Progress::Closed(CloseReason::Broken(_))), "{progress:?}");
    drop(driven);
    thread.join().unwrap();
}

#[test]
fn closing_flushes_what_was_pulled_and_ends_tls_in_order() {
    let (context, authority) = context();
    let config = tls_server::config(&params(&["mx.example.org"]), Some(&authority));
    let (address, thread) = serve(move |stream| {
        let mut stream = tls_server::accept(config, stream);
        let mut read = Vec::new();
        // Fails on an end without close_notify.
        stream.read_to_end(&mut read).map(|_| read)
    });
    let mut driven = Driven::connected(address);
    start_tls(&mut driven, &context);
    driven.connection.plaintext.extend_from_slice(b"QUIT\r\n");
    driven.connection.close();
    assert_eq!(thread.join().unwrap().unwrap(), b"QUIT\r\n");
}

#[test]
fn tls_that_cannot_begin_is_reported_as_failed() {
    let (listener, address) = loopback();
    let mut driven = Driven::connected(address);
    let error = SystemError::new(TlsTrouble::NotBegun, "no");
    driven.connection.start_tls(Err(error.clone()));
    assert_eq!(driven.wait(&mut nothing), Progress::TlsFailed(error));
    drop(listener);
}
