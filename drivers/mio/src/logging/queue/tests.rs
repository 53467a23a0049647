use super::*;
use std::sync::Arc;

#[test]
fn lines_come_out_together_and_in_order() {
    let queue = Queue::default();
    queue.push(b"a\n");
    queue.push(b"b\n");
    queue.reopen();
    queue.reopen();
    queue.push(b"c\n");
    assert_eq!(queue.take(), Entry::Lines(b"a\nb\n".to_vec()));
    assert_eq!(queue.take(), Entry::Reopen);
    assert_eq!(queue.take(), Entry::Lines(b"c\n".to_vec()));
}

#[test]
fn what_finds_no_room_is_counted_where_it_is_missing() {
    let queue = Queue::default();
    let line = vec![b'x'; QUEUE_LIMIT_OCTETS / 2];
    queue.push(&line);
    queue.push(&line);
    queue.push(b"lost\n");
    queue.push(b"lost too\n");
    // What the writer is at takes room until it is done.
    assert!(matches!(queue.take(), Entry::Lines(_)));
    queue.push(b"lost as well\n");
    assert!(matches!(queue.take(), Entry::Lines(_)));
    queue.push(b"found room\n");
    assert_eq!(queue.take(), Entry::Dropped(3));
    assert_eq!(queue.take(), Entry::Lines(b"found room\n".to_vec()));
    queue.push(&[b'x'; QUEUE_LIMIT_OCTETS + 1]);
    assert_eq!(queue.take(), Entry::Dropped(1));
}

#[test]
fn the_end_waits_for_a_writer_that_gets_on_and_not_for_one_that_is_stuck() {
    let queue = Arc::new(Queue::default());
    assert!(queue.drain(Duration::ZERO), "nothing was to be done");
    queue.push(b"a\n");
    assert!(!queue.drain(Duration::ZERO), "nobody writes");
    // It writes the line and waits for more.
    let writer = Arc::clone(&queue);
    thread::spawn(move || {
        assert_eq!(writer.take(), Entry::Lines(b"a\n".to_vec()));
        assert_eq!(writer.take(), Entry::Reopen);
        thread::park();
    });
    assert!(queue.drain(Duration::from_secs(60)));
    queue.reopen();
    // It never comes back from that.
    assert!(!queue.drain(Duration::from_millis(1)));
    while !queue.is_stuck(Duration::from_millis(1)) {
        thread::yield_now();
    }
    assert!(!queue.is_stuck(Duration::from_secs(60)));
}
