# Dragonfly reads its certificate files only when it starts and at CONFIG SET tls true: this asks it to, each time they change.
# The kubelet replaces a Secret's files together. Dragonfly may still read one before and the other after that, does not
# notice, and then fails every handshake; INFO lacks the certificate's lines in that state, and it is asked again.
set -u
# The kernel gives the first process of a container no signal that it does not handle, and the pod ends with its last container.
trap 'exit 0' TERM INT
seen=
while sleep 10 & wait $!; do
  now=$(cat /run/secrets/server/tls.crt /run/secrets/server/tls.key | cksum)
  [ "$now" != "$seen" ] || continue
  # A file that is not whole must not be tried: a reload that fails closes a connection of somebody else.
  grep -q 'END CERTIFICATE' /run/secrets/server/tls.crt && grep -q 'END.* KEY' /run/secrets/server/tls.key || continue
  answer=$(redis-cli -p 9999 CONFIG SET tls true)
  case $answer in
    OK) if redis-cli -p 9999 INFO server | grep -q tls_cert_subject; then
          echo 'new certificate is served'
          seen=$now
        else
          echo 'certificate and key do not match: trying again'
        fi ;;
    *ERR*)
      # Only other files can mend that.
      echo "Dragonfly refuses the files and keeps its old certificate: $answer"
      seen=$now ;;
    *) echo "Dragonfly does not answer yet: $answer" ;;
  esac
done
