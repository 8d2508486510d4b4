"""The two hosts behind the protocol of hosts/host.py: this machine and one reached over SSH.

Nothing is imported here: inferfleet.hosts.local is light, inferfleet.hosts.ssh loads Fabric.
"""
