use super::*;

#[test]
fn what_is_dropped_is_used_again() {
    let pool = Pool::default();
    let mut chunk = pool.take();
    chunk.first_mut(3).copy_from_slice(b"abc");
    let octets = chunk.into_bytes(3);
    assert_eq!(octets, &b"abc"[..]);
    let part = octets.slice(1..);
    drop(octets);
    let mut other = pool.take();
    assert_eq!(other.first_mut(3), [0; 3], "a part of it is still in use");
    assert_eq!(pool.taken_octets(), 2 * DATA_CHUNK_OCTETS);
    drop(part);
    assert_eq!(pool.taken_octets(), DATA_CHUNK_OCTETS);
    assert_eq!(pool.take().first_mut(3), b"abc");
    drop(other);
    assert_eq!(pool.taken_octets(), 0);
}

#[test]
fn what_is_kept_is_bounded() {
    let pool = Pool::default();
    let taken: Vec<_> = (0..2 * KEPT_LIMIT).map(|_| pool.take().into_bytes(1)).collect();
    drop(taken);
    assert_eq!(pool.chunks().kept.len(), KEPT_LIMIT);
}
