"""The two hosts behind the protocol of inferfleet.host: this machine and one reached over SSH.

Nothing is imported here: inferfleet.hosts.local is light, inferfleet.hosts.ssh loads Fabric.
"""
