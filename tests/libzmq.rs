//! The libzmq that is linked: the one version that everything was tried with, static, with CURVE for bindings beyond the
//! machine.

/// A build against another libzmq, or one without CURVE, is noticed here and not in production.
#[test]
fn libzmq_is_4_3_5_with_curve_and_ipc() {
    assert_eq!(zmq::version(), (4, 3, 5));
    assert_eq!(zmq::has("curve"), Some(true));
    assert_eq!(zmq::has("ipc"), Some(true));
    assert!(zmq::CurveKeyPair::new().is_ok(), "CURVE can make keys");
}

/// The platform was configured: without it TCP keepalive is silently off.
#[test]
fn tcp_keepalive_can_be_set() {
    let socket = zmq::Context::new().socket(zmq::ROUTER).unwrap();
    socket.set_tcp_keepalive(1).unwrap();
    socket.set_tcp_keepalive_idle(30).unwrap();
    assert_eq!(socket.get_tcp_keepalive_idle(), Ok(30));
}
