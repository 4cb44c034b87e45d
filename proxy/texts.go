package proxy

import "dragontls/proxy/resp"

// These are local replies: what a session writes to its client in place of a reply of the backend, or as the last reply.
var (
	textOK        = resp.AppendOK(nil)
	textNull      = []byte("$-1\r\n")
	textNull3     = []byte("_\r\n") // in RESP3
	textExecAbort = []byte("-EXECABORT Transaction discarded because of previous errors\r\n")
	textInternal  = resp.AppendError(nil, "ERR dragontls: internal error, this connection is closed")

	textDoomed       = resp.AppendError(nil, "ERR dragontls: refused inside a transaction in which a command was refused before")
	textRulesChanged = resp.AppendError(nil, "NOPERM dragontls: the rules of this client changed inside a transaction, which was not run")

	textMalformed    = resp.AppendError(nil, "ERR dragontls: the backend's reply is malformed or nested too deeply, so the session ends")
	textUnavailable  = resp.AppendError(nil, "LOADING dragontls: backend unavailable, the command was not sent")
	textBackendAuth  = resp.AppendError(nil, "ERR dragontls: the backend refused the proxy's credentials, see the proxy's log")
	textBackendOpen  = resp.AppendError(nil, "ERR dragontls: the backend lets connections in that did not authenticate, so it is not used")
	textBackendState = resp.AppendError(nil, "ERR dragontls: the backend does not give this session its database and protocol again, so the session ends")
)

// formBackendState is textBackendState where the backend's error is known: what was asked, and that error.
const formBackendState = "ERR dragontls: the backend refuses %s, which this session has done before, so the session ends: %s"
