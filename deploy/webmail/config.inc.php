<?php
// Roundcube's configuration for emergency mailboxes. What differs from place to place comes from deploy/mailbox, in the
// environment, and from brand.ini.

$brand = parse_ini_file(getenv('HOLDFAST_BRAND'), true);

$config = [];
$config['db_dsnw'] = 'sqlite:///' . getenv('HOLDFAST_WEBMAIL_DATA') . '/roundcube.db?mode=0600';
$config['des_key'] = trim(file_get_contents(getenv('HOLDFAST_WEBMAIL_DATA') . '/des.key'));
$config['imap_host'] = getenv('HOLDFAST_IMAP');
$config['smtp_host'] = getenv('HOLDFAST_SUBMISSION');
$config['smtp_user'] = '%u';
$config['smtp_pass'] = '%p';
$config['imap_conn_options'] = $config['smtp_conn_options'] = ['ssl' => ['verify_peer' => true, 'verify_peer_name' => true]];
$config['log_driver'] = 'stdout';
$config['temp_dir'] = getenv('HOLDFAST_WEBMAIL_DATA') . '/temp';
$config['mime_types'] = '/etc/roundcube/mimetypes.php';

$accepted = substr($_SERVER['HTTP_ACCEPT_LANGUAGE'] ?? 'en', 0, 2);
$config['product_name'] = $brand['name'][$accepted] ?? reset($brand['name']);
$config['skin'] = 'elastic';
$config['skin_logo'] = $brand['logo'] !== '' ? ['*' => '/brand/logo'] : null;
$config['language'] = $brand['language'] === 'auto' ? null : $brand['language'];
$config['support_url'] = '';
$config['blankpage_url'] = '/watermark.html';
$config['plugins'] = ['holdfast', 'markasjunk'];

// Mail as a company writes it, and nothing that nobody needs in an emergency.
$config['enable_spellcheck'] = false;
$config['enable_installer'] = false;
$config['login_autocomplete'] = 2;
$config['login_rate_limit'] = 0;          // it would keep the person out; Holdfast keeps out who guesses
$config['mail_domain'] = '';
$config['create_default_folders'] = false;
$config['drafts_mbox'] = 'Drafts';
$config['sent_mbox'] = 'Sent';
$config['trash_mbox'] = 'Trash';
$config['junk_mbox'] = 'Junk';
$config['no_save_sent_messages'] = true;  // the server does it
$config['lock_special_folders'] = true;
$config['identities_level'] = 3;          // one's own address, and no other
$config['address_book_type'] = '';        // no private address book: it would be left behind
$config['collected_recipients'] = $config['collected_senders'] = '';  // nor what it would collect by itself
$config['autocomplete_addressbooks'] = ['colleagues'];
$config['disabled_actions'] = ['addressbook.import', 'addressbook.export', 'addressbook.create', 'mail.import', 'mail.bounce', 'settings.about', 'settings.responses',
                               'settings.edit-response', 'settings.folders', 'settings.identities', 'settings.edit-identity'];
$config['dont_override'] = ['plugins', 'skin', 'compose_extwin', 'mail_read_time', 'identities_level', 'no_save_sent_messages', 'drafts_mbox', 'sent_mbox', 'trash_mbox', 'junk_mbox'];
$config['refresh_interval'] = 60;
$config['min_refresh_interval'] = 10;
$config['htmleditor'] = 0;
$config['show_images'] = 0;               // pictures from outside tell their sender who reads
$config['prefer_html'] = true;
$config['mdn_requests'] = 2;              // no receipts
$config['session_storage'] = 'php';      // one request of a person at a time: with the database two at once lose each other's state
$config['session_lifetime'] = 60;
$config['ip_check'] = true;
$config['proxy_whitelist'] = ['127.0.0.1', '::1'];  // what gives TLS, on this machine: it says whom it speaks for (X-Forwarded-For, X-Forwarded-Proto)
$config['check_all_folders'] = false;
$config['message_show_email'] = true;
