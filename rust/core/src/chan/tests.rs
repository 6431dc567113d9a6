//! Non-blocking rules of a channel, from SEMANTICS C2 to C8.

use super::{Chan, RecvError, SendError};

#[test]
fn full_channel_gives_the_value_back() {
    let chan = Chan::new(1);
    assert!(chan.try_send("a").is_ok());
    assert_eq!(chan.try_send("b"), Err(SendError::Full("b")));
    assert_eq!(chan.len(), 1);
}

#[test]
fn closed_channel_drains_in_order_then_says_closed() {
    let chan = Chan::new(3);
    for i in 0..3 {
        assert!(chan.try_send(i).is_ok());
    }
    assert!(chan.close().is_ok());
    assert!(chan.close().is_err());
    assert_eq!(chan.try_send(9), Err(SendError::Closed(9)));
    assert_eq!((chan.try_recv(), chan.try_recv(), chan.try_recv()), (Ok(0), Ok(1), Ok(2)));
    assert_eq!(chan.try_recv(), Err(RecvError::Closed));
}

#[test]
fn empty_channel_has_nothing_and_an_unbuffered_one_no_room() {
    let chan = Chan::<u8>::new(0);
    assert_eq!(chan.try_recv(), Err(RecvError::Empty));
    assert_eq!(chan.try_send(1), Err(SendError::Full(1)));
}
