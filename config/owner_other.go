//go:build !unix

package config

func describe(string) string { return "its owner and mode are not known here" }
