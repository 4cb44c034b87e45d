package proxy

// closeReason says why a session ended; the first cause wins. It is a metric's label.
type closeReason string

const (
	closeClient        closeReason = "client_closed"       // the client said goodbye or its socket ended
	closeClientError   closeReason = "client_error"        // reset, broken TLS
	closeQuit          closeReason = "quit"                // QUIT
	closeProtocol      closeReason = "protocol_error"      // what the client sent is no RESP
	closeHTTP          closeReason = "http"                // an HTTP request inside TLS
	closeSlow          closeReason = "slow_client"         // no byte accepted for WRITE_TIMEOUT, others waited behind it, or what it did not take filled the memory
	closeMemory        closeReason = "memory_limit"        // it held most when its identity's share of MEMORY_LIMIT or the limit was passed
	closeIdle          closeReason = "idle_timeout"        // IDLE_TIMEOUT
	closeDrain         closeReason = "drain"               // SIGTERM
	closeCut           closeReason = "drain_timeout"       // DRAIN_TIMEOUT ran out with a reply owed
	closeShutdown      closeReason = "shutdown"            // ended at once
	closeBackend       closeReason = "backend_closed"      // the backend ended its connection
	closeBackendError  closeReason = "backend_error"       // reset, malformed or unasked replies
	closeLane          closeReason = "lane_error"          // replies on a lane it used may have been out of place
	closeMoved         closeReason = "backend_moved"       // its own connection was to an address that is the backend's no more
	closeUnavailable   closeReason = "backend_unavailable" // no connection within 2 s
	closeBackendAuth   closeReason = "backend_auth"        // the backend refused the proxy's credentials
	closeBackendState  closeReason = "backend_state"       // the backend refused the database, protocol or name that the session had
	closeBackendOpen   closeReason = "backend_open"        // it serves connections without AUTH, see errBackendOpen
	closeRefused       closeReason = "refused_command"     // a refusal where replies cannot be counted
	closeReset         closeReason = "reset_refused"       // RESET or QUIT with an error, or with no reply at all, where replies cannot be counted
	closeRevoked       closeReason = "certificate_revoked" // a CRL names the client's certificate
	closeUntrusted     closeReason = "untrusted"           // the client's CA is not trusted any more
	closeExpired       closeReason = "certificate_expired" // the client's certificate ends
	closeNotAllowed    closeReason = "not_allowed"         // ALLOW does not name the client any more
	closeUnmapped      closeReason = "unmapped"            // no rule of the users file matches it any more
	closeBadUser       closeReason = "bad_user"            // the name of its user is none
	closeUserChanged   closeReason = "user_changed"        // it acts as somebody else from now on
	closeIdentityFull  closeReason = "max_connections_identity"
	closeFull          closeReason = "max_connections"
	closeInternalError closeReason = "internal_error" // a panic, a bug of ours
)

// Reasons of a handshake that did not finish; a metric's label.
const (
	handshakeOK             = "ok"
	handshakeNoCertificate  = "no_certificate"
	handshakeUnknownCA      = "unknown_ca"
	handshakeExpired        = "certificate_expired"
	handshakeRevoked        = "certificate_revoked"
	handshakeNoCRL          = "no_crl"            // of the issuer of the client's certificate
	handshakeCRLExpired     = "crl_expired"       // or not valid yet
	handshakeNotAllowed     = "not_allowed"       // by ALLOW
	handshakeUnmapped       = "unmapped"          // no rule of the users file matches
	handshakeBadUser        = "bad_user"          // the name of the client's user is none
	handshakeBadCert        = "bad_certificate"   // or it cannot be parsed, or TLS cannot use its key
	handshakeChainTooLong   = "chain_too_long"    // too many certificates
	handshakeChainTooBig    = "chain_too_big"     // too many bytes of certificates
	handshakeChainComplex   = "chain_too_complex" // the certificates can be chained in too many ways
	handshakeKeyTooBig      = "key_too_big"       // a key in them takes too long to check signatures with; above RSA 8192, crypto/tls refuses it
	handshakeWeakKey        = "weak_key"          // that of the client's own certificate
	handshakeTooBig         = "handshake_too_big" // maxHandshakeBytes or maxFlightBytes
	handshakeVersion        = "protocol_version"
	handshakePlaintext      = "plaintext"
	handshakeTimeout        = "timeout"
	handshakeEvicted        = "evicted"         // all places were taken, and its ClientHello was not whole
	handshakeEvictedWaiting = "evicted_waiting" // all places were taken, and its peer did not go on
	handshakeEvictedShare   = "evicted_share"   // all places were taken, by its address more than its share
	handshakePlaces         = "max_handshakes"  // all places were taken by handshakes that compute
	handshakeClosed         = "closed"
	handshakeClientAlert    = "client_alert"
	handshakeFull           = "max_connections"
	handshakeOther          = "other"
)
