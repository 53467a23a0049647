// smtp-server from npm, with one trait for each address.
"use strict";

const fs = require("fs");
const { SMTPServer } = require("smtp-server");

function refusal(code, text) {
  return Object.assign(new Error(text), { responseCode: code });
}

const usual = {
  name: "mx.smtp-server.example",
  banner: "smtp-server from npm",
  key: fs.readFileSync("/srv/tls/mail.key"),
  cert: fs.readFileSync("/srv/tls/mail.pem"),
  authOptional: true,
  disableReverseLookup: true,
  onRcptTo(address, session, callback) {
    const known = !address.address.startsWith("unknown");
    callback(known ? null : refusal(550, "5.1.1 nobody of this name"));
  },
  onData(stream, session, callback) {
    stream.resume();
    stream.on("end", () => {
      callback(stream.sizeExceeded ? refusal(552, "5.3.4 the message is too large") : null, "queued");
    });
  },
};

function isAlice(auth) {
  return auth.username === "alice" &&
    (auth.validatePassword ? auth.validatePassword("wonder land") : auth.password === "wonder land");
}

const login = {
  authOptional: false,
  allowInsecureAuth: true,
  onAuth(auth, session, callback) {
    if (isAlice(auth)) return callback(null, { user: "alice" });
    return callback(refusal(535, "5.7.8 wrong name or password"));
  },
};

const servers = [
  ["127.0.0.80", 25, { disabledCommands: ["AUTH", "STARTTLS"] }],
  ["127.0.0.80", 465, { secure: true, disabledCommands: ["AUTH"] }],
  ["127.0.0.80", 587, { ...login, authMethods: ["CRAM-MD5"] }],
  ["127.0.0.81", 587, { ...login, authMethods: ["LOGIN"] }],
  ["127.0.0.82", 25, {
    disabledCommands: ["AUTH", "STARTTLS"],
    onConnect: (session, callback) => callback(refusal(421, "4.7.0 too busy")),
  }],
  ["127.0.0.83", 25, {
    disabledCommands: ["AUTH", "STARTTLS"],
    onMailFrom: (address, session, callback) => callback(refusal(451, "4.7.1 not yet")),
  }],
  ["127.0.0.84", 25, { disabledCommands: ["AUTH", "STARTTLS"], hideSize: true, size: 1000 }],
];

for (const [address, port, traits] of servers) {
  const server = new SMTPServer({ ...usual, ...traits });
  server.on("error", (error) => console.log(address, port, error.message));
  server.listen(port, address);
}
