package proxy

// closeReason says why a session ended. If there are several reasons, the first counts. It is the value of a metric's label.
type closeReason string

const (
	closeClient        closeReason = "client_closed"             // the client sent close_notify, or its socket ended
	closeClientError   closeReason = "client_error"              // the client's connection was reset, or its TLS is broken
	closeQuit          closeReason = "quit"                      // the client sent QUIT
	closeProtocol      closeReason = "protocol_error"            // what the client sent is not RESP
	closeHTTP          closeReason = "http"                      // the client sent an HTTP request inside TLS
	closeSlow          closeReason = "slow_client"               // it took no byte for WRITE_TIMEOUT, others waited behind it, or what it did not take filled the memory
	closeKilled        closeReason = "killed"                    // an operator closed it, see Server.KillSessions
	closeMemory        closeReason = "memory_limit"              // it held most when MEMORY_LIMIT or its identity's share of it was exceeded
	closeIdle          closeReason = "idle_timeout"              // it was idle for IDLE_TIMEOUT
	closeDrain         closeReason = "drain"                     // the server drained, after SIGTERM
	closeCut           closeReason = "drain_timeout"             // DRAIN_TIMEOUT ran out while a reply was owed
	closeShutdown      closeReason = "shutdown"                  // the server was closed at once
	closeBackend       closeReason = "backend_closed"            // the backend closed the session's own connection
	closeBackendError  closeReason = "backend_error"             // the connection was lost, or brought malformed replies or replies that nobody asked for
	closeLane          closeReason = "lane_error"                // replies on its lane may have been out of place, or one was lost half delivered
	closeScripts       closeReason = "scripts_lost"              // the backend was lost, and with it the scripts and functions that the client believes loaded
	closeMoved         closeReason = "backend_moved"             // its own connection led to an address that is no longer the backend's
	closeUnavailable   closeReason = "backend_unavailable"       // the backend could not be reached within 2 s, or refused at once
	closeBackendAuth   closeReason = "backend_auth"              // the backend refused the proxy's credentials
	closeBackendState  closeReason = "backend_state"             // the backend refused the database, protocol or READONLY that the session had
	closeMaxClients    closeReason = "backend_max_clients"       // the session needed a connection, and the backend's maxclients was reached
	closeBackendBusy   closeReason = "backend_busy"              // the session was about to keep a connection, which the backend did not set up while a script ran
	closeBackendOpen   closeReason = "backend_open"              // the backend serves connections without AUTH, see backend.ErrOpen
	closeRefused       closeReason = "refused_command"           // a command was refused while replies could not be counted
	closeWrongPassword closeReason = "wrong_password"            // the client has sent maxWrongPasswords wrong passwords, or such that could not be compared
	closeReset         closeReason = "reset_refused"             // RESET or QUIT got an error or no reply, and the state of the connection is in doubt
	closeRevoked       closeReason = "certificate_revoked"       // a CRL names the client's certificate
	closeUntrusted     closeReason = "untrusted"                 // the client's CA is no longer trusted
	closeExpired       closeReason = "certificate_expired"       // the client's certificate expires
	closeNotYetValid   closeReason = "certificate_not_yet_valid" // the client's certificate, or a CA above it, is not valid yet
	closeNotAllowed    closeReason = "not_allowed"               // ALLOW no longer names the client
	closeUnmapped      closeReason = "unmapped"                  // no rule of the users file matches the client any more
	closeBadUser       closeReason = "bad_user"                  // the name of the client's user is not valid
	closeUserChanged   closeReason = "user_changed"              // the client maps to another user from now on
	closeIdentityFull  closeReason = "max_connections_identity"  // the client's identity had as many sessions as it may
	closeFull          closeReason = "max_connections"           // there were as many sessions as there may be when its handshake was done
	closeInternalError closeReason = "internal_error"            // a panic or another bug of the proxy
)

// The results of handshakes; each is a value of a metric's label.
const (
	handshakeOK             = "ok"
	handshakeNoCertificate  = "no_certificate"
	handshakeUnknownCA      = "unknown_ca"
	handshakeExpired        = "certificate_expired"
	handshakeNotYetValid    = "certificate_not_yet_valid"
	handshakeRevoked        = "certificate_revoked"
	handshakeNoCRL          = "no_crl"              // there is no CRL of the issuer of the client's certificate
	handshakeCRLExpired     = "crl_expired"         // that CRL has expired
	handshakeCRLNotYetValid = "crl_not_yet_valid"   // that CRL is not valid yet
	handshakeNotAllowed     = "not_allowed"         // ALLOW does not name the client
	handshakeUnmapped       = "unmapped"            // no rule of the users file matches the client
	handshakeBadUser        = "bad_user"            // the name of the client's user is not valid
	handshakeSignature      = "signature_algorithm" // a certificate of the chain is signed with SHA-1, or in a way that Go does not know
	handshakeBadCert        = "bad_certificate"     // also if it cannot be parsed, or TLS cannot use its key
	handshakeChainTooLong   = "chain_too_long"      // too many certificates
	handshakeChainTooBig    = "chain_too_big"       // too many bytes of certificates
	handshakeChainComplex   = "chain_too_complex"   // the certificates can be chained in too many ways
	handshakeKeyTooBig      = "key_too_big"         // a key of the chain is too costly to check signatures with; crypto/tls refuses RSA keys above 8192 bits
	handshakeWeakKey        = "weak_key"            // the key of the client's own certificate is weak
	handshakeTooBig         = "handshake_too_big"   // the peer sent more than maxHandshakeBytes or maxFlightBytes
	handshakeVersion        = "protocol_version"
	handshakeCipher         = "no_cipher_suite"
	handshakePlaintext      = "plaintext"
	handshakeProxyHeader    = "proxy_header" // a peer of PROXY_PROTOCOL_FROM sent no header of the PROXY protocol, or a malformed one
	handshakeTimeout        = "timeout"
	handshakeEvicted        = "evicted"         // all places were taken, and this peer's ClientHello was not complete
	handshakeEvictedWaiting = "evicted_waiting" // all places were taken, and the handshake was waiting for this peer
	handshakeEvictedShare   = "evicted_share"   // all places were taken, and this peer's address had more than its share
	handshakePlaces         = "max_handshakes"  // all places were taken by handshakes that were computing
	handshakeClosed         = "closed"
	handshakeClientAlert    = "client_alert"
	handshakeFull           = "max_connections" // there were as many sessions as there may be, and all places were taken
	handshakeOther          = "other"
)
