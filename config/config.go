// Package config reads the settings of dragontls from DRAGONTLS_ environment
// variables. Load reports every fault at once, without ever showing a secret.
package config

import (
	"crypto/tls"
	"net/netip"
	"time"
)

// Prefix begins the name of every variable.
const Prefix = "DRAGONTLS_"

// Config is what the environment says, checked and with defaults filled in.
// It is not modified after Load; any goroutine may read it and call its methods.
//
// The tags hold the table of variables: env is the name without Prefix, doc its
// meaning ('x' marks code), shown replaces the default in the table, min and max
// are the accepted range, oneof the accepted words, form the kind of text, secret
// hides the value in faults, twin names the field's _FILE variable, required
// stands in the table for a default, changes:"live" is for what takes effect while
// dragontls runs (see Follow).
type Config struct {
	Listen string `env:"LISTEN" envDefault:":6380" form:"address" doc:"client listener"`
	// AdminListen is empty when the admin listener is disabled.
	TakeOver       bool   `env:"TAKE_OVER" envDefault:"false" doc:"'true': listen although another dragontls of the same user listens on 'LISTEN', to take over from it without refusing a client (Linux)"`
	AdminListen    string `env:"ADMIN_LISTEN" envDefault:"127.0.0.1:9380" form:"adminaddress" doc:"plain HTTP on an address or, as 'unix:///path', on a Unix socket of mode 0600: '/livez' and '/readyz' (open on any address), '/metrics', '/status.json' and the status page at '/', and the requests with which operators steer it (all of these off loopback only with 'ADMIN_TOKEN_FILE'); set to nothing, it is disabled"`
	AdminTokenFile string `env:"ADMIN_TOKEN_FILE" form:"secretfile" doc:"bearer token for everything but health when the address is neither loopback nor a Unix socket; read again at every use"`

	// TLSCertFiles and TLSKeyFiles have the same length, at least 1.
	TLSCertFiles       []string `env:"TLS_CERT_FILE" form:"file" required:"true" doc:"server chain (PEM); a comma-separated list serves several, chosen by SNI and by what the client supports"`
	TLSKeyFiles        []string `env:"TLS_KEY_FILE" form:"file" required:"true" doc:"key of each chain (PEM), in the same order"`
	TLSKeyPasswordFile string   `env:"TLS_KEY_PASSWORD_FILE" form:"secretfile" doc:"file with the passphrase of those keys that are encrypted (PKCS #8, PBES2), 'BACKEND_KEY_FILE' included; read again with them"`
	// TLSClientCAFile is empty only where TLSClientAuth is tls.NoClientCert.
	TLSClientCAFile string `env:"TLS_CLIENT_CA_FILE" form:"file" shown:"required unless client auth is 'none'" doc:"CA bundle that signs client certificates"`
	TLSCRLFile      string `env:"TLS_CRL_FILE" form:"file" doc:"CRLs (PEM or DER) of the client CAs; when set, the issuer of every client certificate must have one in date there"`
	TLSCRLExpired   string `env:"TLS_CRL_EXPIRED" envDefault:"refuse" oneof:"refuse,warn" doc:"what a CRL that is missing or not in date does to new handshakes: 'refuse' or 'warn'; live sessions never end because a CRL aged"`
	// TLSClientAuth is tls.RequireAndVerifyClientCert, tls.VerifyClientCertIfGiven
	// or tls.NoClientCert.
	TLSClientAuth tls.ClientAuthType `env:"TLS_CLIENT_AUTH" envDefault:"require" doc:"'require', 'optional' or 'none'; anything but 'require' is logged as a warning at start"`
	// TLSMinVersion and TLSMaxVersion are tls.VersionTLS12 or tls.VersionTLS13.
	TLSMinVersion     uint16        `env:"TLS_MIN_VERSION" envDefault:"1.2" doc:"oldest TLS version: '1.2' or '1.3'"`
	TLSMaxVersion     uint16        `env:"TLS_MAX_VERSION" envDefault:"1.3" doc:"newest TLS version: '1.2' or '1.3'"`
	TLSReloadInterval time.Duration `env:"TLS_RELOAD_INTERVAL" envDefault:"10s" min:"100ms" max:"24h" doc:"how often certificate files are read again, the guarantee behind file events"`
	TLSTicketKeysFile string        `env:"TLS_TICKET_KEYS_FILE" form:"secretfile" shown:"a random master" doc:"master secret for session tickets, to share resumption among replicas"`

	// Allow holds identity patterns; nil: every verified certificate.
	Allow     []string `env:"ALLOW" shown:"any verified certificate" doc:"patterns of certificates that may connect, one of which must match: 'cn:web-*', 'dns:*.apps.internal', 'uri:spiffe://prod/**', 'ou:', 'email:', 'serial:', 'spki:sha256/...', 'ca:sha256/...'"`
	AllowFile string   `env:"ALLOW_FILE" form:"file" doc:"more of them in a file, one a line; read again like certificates"`
	UsersFile string   `env:"USERS_FILE" form:"file" doc:"YAML file that maps certificates to users of the backend; read again like certificates; a certificate that it does not map is refused"`
	// TLSOCSP is "off", "fetch" or the path of a file.
	TLSOCSP string `env:"TLS_OCSP" envDefault:"off" doc:"stapled OCSP response for the server certificate: 'off', 'fetch' from its CA, or a file (DER)"`

	ProxyProtocolFrom []netip.Prefix `env:"PROXY_PROTOCOL_FROM" doc:"load balancers in front of 'LISTEN', as networks such as '10.0.0.0/8': each of their connections must begin with a header of the PROXY protocol (version 1 or 2), whose client then counts as the peer; everybody else must not send one"`

	HandshakeTimeout time.Duration `env:"HANDSHAKE_TIMEOUT" changes:"live" envDefault:"10s" min:"1ms" max:"24h" doc:"TCP accept to finished handshake"`
	MaxHandshakes    int           `env:"MAX_HANDSHAKES" changes:"live" envDefault:"1000" shown:"as 'MAX_CONNECTIONS'" min:"1" max:"1000000" doc:"sockets without a finished handshake; when full, new ones wait while handshakes succeed, and those that make no progress are closed first; the default is as large as 'MAX_CONNECTIONS', and at least 1000, as far as descriptors and an eighth of 'MEMORY_LIMIT' allow; an explicit value that does not fit the memory limit is a fault"`
	MaxConnections   int           `env:"MAX_CONNECTIONS" changes:"live" envDefault:"10000" min:"1" max:"10000000" doc:"sessions; a client beyond it reads an error that names the limit and is closed, or is closed before TLS while all places for handshakes are taken; a default that does not fit the descriptor or memory limit is lowered, with a log line; an explicit value that does not is a fault"`
	// MaxConnectionsPerIdentity 0 means no limit of its own.
	MaxConnectionsPerIdentity int `env:"MAX_CONNECTIONS_PER_IDENTITY" changes:"live" envDefault:"0" min:"0" max:"10000000" doc:"sessions of one client identity; beyond them a quarter as many new ones (and at least one) wait up to a second for a place, and any other is refused at once; 0: no limit of its own"`
	// IdleTimeout 0 means never.
	IdleTimeout  time.Duration `env:"IDLE_TIMEOUT" changes:"live" envDefault:"0" min:"0" max:"87600h" doc:"closes a session that is silent this long, unless a reply is owed or a subscription lives; 0: never"`
	WriteTimeout time.Duration `env:"WRITE_TIMEOUT" changes:"live" envDefault:"30s" min:"1ms" max:"24h" doc:"a client that accepts no byte for this long is closed"`
	KeepAlive    time.Duration `env:"KEEPALIVE" envDefault:"30s" min:"1s" max:"9h" doc:"TCP keepalive, both sides"`
	DrainDelay   time.Duration `env:"DRAIN_DELAY" changes:"live" envDefault:"0s" min:"0" max:"24h" doc:"after SIGTERM, keep accepting this long with '/readyz' failing"`
	DrainTimeout time.Duration `env:"DRAIN_TIMEOUT" changes:"live" envDefault:"25s" min:"1ms" max:"24h" doc:"then at most this long to finish"`

	// Backend is BACKEND_URL at the time of Load; use BackendTarget for what it
	// says now and BackendCredentials for whom to authenticate as.
	Backend         Backend `env:"BACKEND_URL" envDefault:"redis://127.0.0.1:6379" secret:"true" twin:"BACKEND_URL_FILE" doc:"'redis://', 'rediss://' (TLS) or 'unix:///path'; user and password in it are allowed, a database path is refused"`
	BackendURLFile  string  `env:"BACKEND_URL_FILE" form:"secretfile"`
	BackendUsername string  `env:"BACKEND_USERNAME" doc:"user that dragontls authenticates as on behalf of clients; needs a password"`
	BackendPassword Secret  `env:"BACKEND_PASSWORD" secret:"true" twin:"BACKEND_PASSWORD_FILE" doc:"its password; without one clients authenticate themselves"`
	// BackendPasswordFile and BackendURLFile are read again at every use.
	BackendPasswordFile string `env:"BACKEND_PASSWORD_FILE" form:"secretfile"`
	ClientPassword      string `env:"CLIENT_PASSWORD" changes:"live" envDefault:"check" secret:"true" oneof:"check,refuse" doc:"what becomes of a password that a client sends although dragontls has one for it: 'check' answers the user and password that dragontls uses for this client as the backend would, and others '-WRONGPASS', and passes none on; 'refuse' answers '-NOPERM'"`
	BackendCAFile       string `env:"BACKEND_CA_FILE" form:"file" shown:"those of the system" doc:"CA bundle that signs the certificate of the backend; for 'rediss://'"`
	BackendCertFile     string `env:"BACKEND_CERT_FILE" form:"file" doc:"certificate shown to the backend; for 'rediss://'"`
	BackendKeyFile      string `env:"BACKEND_KEY_FILE" form:"file" doc:"its key"`
	// BackendServerName is empty when the URL's host is the name to verify.
	BackendServerName     string        `env:"BACKEND_SERVER_NAME" shown:"host of the URL" doc:"name that the certificate of the backend must bear; for 'rediss://'"`
	BackendConnectTimeout time.Duration `env:"BACKEND_CONNECT_TIMEOUT" changes:"live" envDefault:"2s" min:"1ms" max:"1h" doc:"for one dial, with authentication"`
	// BackendMaxConnections is never 0 after Load.
	BackendMaxConnections int    `env:"BACKEND_MAX_CONNECTIONS" changes:"live" envDefault:"0" min:"0" max:"20000000" shown:"2 x 'MAX_CONNECTIONS'" doc:"backend connections; when full, the one idle for longest is closed if sessions can do without it; else a session waits at most 2 s for one, then its commands are answered '-LOADING ...'"`
	BackendMode           string `env:"BACKEND_MODE" envDefault:"shared" oneof:"paired,shared" doc:"'shared': sessions of one client share a few backend connections for what cannot disturb one another, and have their own for the rest; 'paired': every session has one of its own"`
	// BackendLanes 0 means as many as the load wants.
	BackendLanes int `env:"BACKEND_LANES" envDefault:"0" min:"0" max:"1024" doc:"'shared': most shared connections per client, user, database and protocol; 0: grows with load up to the number of CPUs, at least 4"`

	// DenyCommands holds upper-case names, NAME or NAME|SUB.
	DenyCommands  []string `env:"DENY_COMMANDS" changes:"live" envDefault:"SYNC,PSYNC,REPLCONF,DFLY,DFLYCLUSTER,DFLYMIGRATE,REPLICAOF,SLAVEOF,ADDREPLICAOF,REPLTAKEOVER,FAILOVER,MIGRATE,MODULE|LOAD,MODULE|LOADEX,MODULE|UNLOAD,SHUTDOWN" doc:"commands answered '-NOPERM dragontls: ...'; 'CONFIG|SET' names a subcommand; '+NAME' adds to the default list, '-NAME' removes from it, and a list without signs replaces it, with a warning for what it drops; 'none' denies nothing"`
	MaxBulk       Size     `env:"MAX_BULK" changes:"live" envDefault:"512mb" min:"1" max:"2gib" doc:"longest value a command may carry"`
	MaxArgs       int      `env:"MAX_ARGS" changes:"live" envDefault:"65536" min:"1" max:"1048576" doc:"most arguments of a command; Dragonfly takes 65,536, Redis 1,048,576"`
	SessionBuffer Size     `env:"SESSION_BUFFER" changes:"live" envDefault:"4mb" min:"64kb" max:"1gib" doc:"'shared': bytes of replies held for one client before its backend connection is read no further"`
	// MemoryLimit is never 0 after Load.
	MemoryLimit Size `env:"MEMORY_LIMIT" changes:"live" envDefault:"0" min:"0" max:"1048576gib" shown:"half of the memory of the cgroup or machine" doc:"everything that clients make the proxy hold, with what it needs itself; one client identity may hold 5/32 of it in buffers; whoever holds most is closed first; GOMEMLIMIT follows it"`

	ExpiryWarning       time.Duration `env:"EXPIRY_WARNING" changes:"live" envDefault:"720h" min:"1s" max:"87600h" doc:"warn this long before a certificate or CRL ends, or a third of its own validity if that is less"`
	AlertWebhookURL     Secret        `env:"ALERT_WEBHOOK_URL" changes:"live" secret:"true" twin:"ALERT_WEBHOOK_URL_FILE" doc:"Slack-compatible JSON POST when a certificate or CRL is about to end and when a reload fails"`
	AlertWebhookURLFile string        `env:"ALERT_WEBHOOK_URL_FILE" changes:"live" form:"secretfile"`

	AuditLog  string `env:"AUDIT_LOG" changes:"live" envDefault:"connections" oneof:"off,connections,commands" doc:"one log line for each session accepted and ended ('connections'), for the name of each command with its identity too ('commands'; never keys or values), or none ('off')"`
	LogLevel  string `env:"LOG_LEVEL" changes:"live" envDefault:"info" oneof:"trace,debug,info,warn,error" doc:"'trace', 'debug', 'info', 'warn' or 'error'"`
	LogFormat string `env:"LOG_FORMAT" envDefault:"json" oneof:"json,console" doc:"'json', or 'console' for people"`

	// Notes are to be logged at start: what was lowered to fit this machine, and
	// each weakening that was asked for.
	Notes []Note `env:"-"`
}
