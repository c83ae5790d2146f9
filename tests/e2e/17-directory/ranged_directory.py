"""An LDAP server that tells long lists of members in ranges, as Active Directory does (MS-ADTS 3.1.1.3.1.3.3): people, and one group of all of
them. ranged_directory.py PORT PEOPLE RANGE"""
import re
import socketserver
import sys

from ldap3.protocol import rfc4511
from pyasn1.codec.ber import decoder, encoder
from pyasn1.error import SubstrateUnderrunError

BASE = "DC=example,DC=org"
PORT, PEOPLE, RANGE = map(int, sys.argv[1:])
GROUP = f"CN=All,{BASE}"
MEMBERS = [f"CN=u{i},{BASE}" for i in range(PEOPLE)]


def ranged(first):
    """The attribute that has the members from this one on."""
    last = min(first + RANGE, PEOPLE)
    return {f"member;range={first}-{'*' if last == PEOPLE else last - 1}": MEMBERS[first:last]}


def found(search):
    for attribute in map(str, search["attributes"]):
        if rest := re.fullmatch(r"member;range=(\d+)-\*", attribute):
            assert str(search["baseObject"]).lower() == GROUP.lower() and search["scope"] == 0, search
            return [(GROUP, ranged(int(rest.group(1))))]
    if int(search["sizeLimit"]) == 1 or search["scope"] == 0:
        return []
    people = [(dn, {"mail": [f"u{i}@example.org"], "whenChanged": ["20261130100000.0Z"]}) for i, dn in enumerate(MEMBERS)]
    return [*people, (GROUP, {"mail": ["all@example.org"], "whenChanged": ["20261130100000.0Z"], "member": [], **ranged(0)})]


def entry(dn, attributes):
    made = rfc4511.SearchResultEntry()
    made["object"] = rfc4511.LDAPDN(dn)
    listed = rfc4511.PartialAttributeList()
    for place, (name, values) in enumerate(attributes.items()):
        one = rfc4511.PartialAttribute()
        one["type"] = rfc4511.AttributeDescription(name)
        one["vals"] = rfc4511.Vals()
        for index, value in enumerate(values):
            one["vals"][index] = rfc4511.AttributeValue(value.encode())
        listed[place] = one
    made["attributes"] = listed
    return "searchResEntry", made


def success(kind, name):
    made = kind()
    made["resultCode"] = rfc4511.ResultCode("success")
    made["matchedDN"] = rfc4511.LDAPDN("")
    made["diagnosticMessage"] = rfc4511.LDAPString("")
    return name, made


class Session(socketserver.BaseRequestHandler):
    def handle(self):
        received = b""
        while data := self.request.recv(65536):
            received += data
            while received:
                try:
                    message, received = decoder.decode(received, asn1Spec=rfc4511.LDAPMessage())
                except SubstrateUnderrunError:
                    break
                self.answer(message)

    def answer(self, message):
        asked, request = message["protocolOp"].getName(), message["protocolOp"].getComponent()
        if asked == "bindRequest":
            return self.send(message, success(rfc4511.BindResponse, "bindResponse"))
        if asked == "searchRequest":
            for dn, attributes in found(request):
                self.send(message, entry(dn, attributes))
            self.send(message, success(rfc4511.SearchResultDone, "searchResDone"))

    def send(self, message, operation):
        made = rfc4511.LDAPMessage()
        made["messageID"] = message["messageID"]
        made["protocolOp"][operation[0]] = operation[1]
        self.request.sendall(encoder.encode(made))


socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("127.0.0.1", PORT), Session).serve_forever()
