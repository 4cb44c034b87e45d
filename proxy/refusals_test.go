package proxy

// The refusals of package command as a client reads them.
const (
	textOwnAuth  = "-NOPERM dragontls: the proxy has authenticated this connection, AUTH is refused\r\n"
	textUserName = "-ERR dragontls: a user name must not contain CR or LF\r\n"
	textTooLong  = "-ERR dragontls: AUTH, HELLO and ACL commands above 64 KiB are refused\r\n"
	textName     = "-ERR dragontls: the name of a command must not contain NUL\r\n"
	textSub      = "-ERR dragontls: a subcommand must not contain NUL\r\n"
	textOption   = "-ERR dragontls: an option of HELLO must not contain NUL\r\n"
	textLongName = "-ERR dragontls: the name of a command above 64 KiB is refused\r\n"
	textLongSub  = "-ERR dragontls: a subcommand above 64 KiB is refused\r\n"
)

func forbidden(what string) string {
	return "-NOPERM dragontls: " + what + " is refused for this client (USERS_FILE)\r\n"
}
